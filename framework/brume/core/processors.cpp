#include "brume/core/processors.h"

#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "brume/core/control_groups.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// Returns the numbers of the processors that this process may run on; none if the system does not say.
std::set<int64_t> allowed_processors() {
  std::set<int64_t> result;
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return result;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &set)) result.insert(i);
#endif
  return result;
}

/// Reads a kernel's list of processors: "0-3,8,10-11".
std::set<int64_t> processor_list(const fs::path& file) {
  std::set<int64_t> result;
  std::ifstream in(file);
  constexpr int64_t most = 65536;
  for (std::string part; std::getline(in, part, ',');) {
    std::istringstream text(part);
    int64_t first = 0, last = 0;
    char dash = 0;
    if (!(text >> first)) continue;
    if (!(text >> dash >> last) || dash != '-') last = first;
    for (int64_t i = std::max<int64_t>(0, first); i <= std::min(last, most); ++i) result.insert(i);
  }
  return result;
}

/// Returns the processors of a quota of `quota` microseconds every `period` microseconds; nothing if there is no limit.
std::optional<double> share(double quota, double period) {
  if (!(quota > 0) || !(period > 0)) return {};
  return quota / period;
}

/// Returns the limit that one directory of a cgroup sets, if it sets one.
std::optional<double> limit_of(const fs::path& directory) {
  double quota = 0, period = 0;
  if (std::ifstream both(directory / "cpu.max"); both >> quota >> period) return share(quota, period);  // "max 100000" is no number
  std::ifstream first(directory / "cpu.cfs_quota_us"), second(directory / "cpu.cfs_period_us");
  if (first >> quota && second >> period) return share(quota, period);  // -1: no limit
  return {};
}

/// Returns `count` as far as the quota of this process's cgroups allows, at least 1.
int64_t within_quota(int64_t count, const fs::path& root) {
  if (const auto limit = smallest_group_limit(root, "cpu", limit_of))
    count = std::min(count, int64_t(std::ceil(std::min(*limit, 65536.0))));
  return std::max<int64_t>(1, count);
}

int64_t processors_of_machine() { return int64_t(std::thread::hardware_concurrency()); }

}  // namespace

int64_t thread_limit() {
  const char* text = std::getenv("OMP_THREAD_LIMIT");
  return text ? std::max(0LL, std::strtoll(text, nullptr, 10)) : 0;
}

int64_t usable_processors(const fs::path& root) {
  const std::set<int64_t> allowed = allowed_processors();
  int64_t result = std::max<int64_t>(1, allowed.empty() ? processors_of_machine() : int64_t(allowed.size()));
  int64_t fast = 0;
  for (const int64_t i : processor_list(root / "sys/devices/cpu_core/cpus")) fast += int64_t(allowed.count(i));
  if (fast > 0) result = std::min(result, fast);
  if (const int64_t limit = thread_limit(); limit > 0) result = std::min(result, limit);
  return within_quota(result, root);
}

int64_t threads_per_process(int64_t local_size, const fs::path& root) {
  const int64_t share = within_quota(processors_of_machine(), root) / std::max<int64_t>(1, local_size);
  return std::min(usable_processors(root), std::max<int64_t>(1, share));
}

}  // namespace brume
