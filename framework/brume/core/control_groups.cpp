#include "brume/core/control_groups.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace brume {
namespace {

namespace fs = std::filesystem;
using LimitOf = std::function<std::optional<double>(const fs::path&)>;

/// Returns the smallest limit of `group`, an absolute path below `mount`, and of the groups above it.
std::optional<double> smallest_limit(const fs::path& mount, fs::path group, const LimitOf& limit_of) {
  std::optional<double> result = limit_of(mount);  // a container sees its own group there
  for (group = group.relative_path(); !group.empty(); group = group.parent_path())
    if (const auto limit = limit_of(mount / group)) result = std::min(*limit, result.value_or(*limit));
  return result;
}

}  // namespace

/// Lines of /proc/self/cgroup: "0::/a/b" (v2), "4:cpu,cpuacct:/a/b" (v1).
std::optional<double> smallest_group_limit(const fs::path& root, std::string_view controller, const LimitOf& limit_of) {
  std::optional<double> result;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool unified = controllers == ",,";
    if (!unified && controllers.find("," + std::string(controller) + ",") == std::string::npos) continue;
    const fs::path mount = root / "sys/fs/cgroup" / (unified ? "" : controller);
    if (const auto limit = smallest_limit(mount, line.substr(second + 1), limit_of)) result = std::min(*limit, result.value_or(*limit));
  }
  return result;
}

}  // namespace brume
