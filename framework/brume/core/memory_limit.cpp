#include "brume/core/memory_limit.h"

#include <fmt/format.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <limits>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/core/control_groups.h"
#include "brume/core/processors.h"

namespace brume {
namespace {

constexpr double no_limit = double(int64_t{1} << 60);  // v1 writes the largest multiple of a page

std::optional<double> memory_of(const std::filesystem::path& directory) {
  for (const char* name : {"memory.max", "memory.limit_in_bytes"}) {
    double bytes = 0;
    if (std::ifstream in(directory / name); in >> bytes && bytes < no_limit) return bytes;  // "max" is no number
  }
  return {};
}

/// The limit that keep_within_group_memory() set; infinite before.
std::atomic<rlim_t> set_by_us = RLIM_INFINITY;

/// Returns the user's limit on a resource in bytes; 0 without one.
int64_t users_limit(__rlimit_resource resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 0;
  return resource == RLIMIT_DATA && limit.rlim_cur == set_by_us ? 0 : static_cast<int64_t>(limit.rlim_cur);
}

/// Returns a number of /proc/self/statm in bytes: 0 = the address space, 1 = what is in memory of it, 2 = and shared with files,
/// 5 = the private memory that the process has reserved.
int64_t own_memory(int index) {
  std::ifstream in("/proc/self/statm");
  int64_t pages = 0;
  for (int i = 0; i <= index; ++i) in >> pages;
  return in ? pages * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace

int64_t group_memory(const std::filesystem::path& root) { return int64_t(smallest_group_limit(root, "memory", memory_of).value_or(0)); }

int64_t free_memory(const std::filesystem::path& root) {
  double room = no_limit;
  std::ifstream in(root / "proc/meminfo");
  for (std::string name; in >> name;) {
    double kib = 0;
    if (name == "MemAvailable:" && in >> kib) room = 1024 * kib;
  }
  const auto group = smallest_group_limit(root, "memory", [](const std::filesystem::path& directory) -> std::optional<double> {
    const auto most = memory_of(directory);
    if (!most) return {};
    for (const char* name : {"memory.current", "memory.usage_in_bytes"}) {
      double taken = 0;
      if (std::ifstream now(directory / name); now >> taken) return std::max(0.0, *most - taken);
    }
    return most;
  });
  room = std::min(room, group.value_or(no_limit));
  if (const int64_t space = users_limit(RLIMIT_AS); space > 0) room = std::min(room, double(space - own_memory(0)));
  rlimit data{};
  if (getrlimit(RLIMIT_DATA, &data) == 0 && data.rlim_cur != RLIM_INFINITY)
    room = std::min(room, double(data.rlim_cur) - double(own_memory(5)));
  return int64_t(std::max(0.0, room));
}

void keep_within_group_memory(int64_t threads) {
  const int64_t group = group_memory();
  rlimit limit{};
  if (group == 0 || getrlimit(RLIMIT_DATA, &limit) != 0) return;
  constexpr int64_t mib = int64_t{1} << 20, stack = 8 * mib, others = 4;  // loaders and autograd
  const int64_t kept = 32 * mib + group / 32;                             // without the code of libraries in memory, it stands still
  const int64_t untouched = own_memory(5) - (own_memory(1) - own_memory(2)) - int64_t(mallinfo2().fordblks);
  const auto wanted = rlim_t(std::max<int64_t>(0, group - kept) + std::max<int64_t>(0, untouched) + (threads + others) * stack);
  if (limit.rlim_cur != set_by_us && limit.rlim_cur <= wanted) return;  // the user's, which is less
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (setrlimit(RLIMIT_DATA, &limit) == 0) set_by_us = limit.rlim_cur;
}

std::string memory_limit_text() {
  const std::pair<int64_t, const char*> limits[] = {{users_limit(RLIMIT_AS), "ulimit -v"},
                                                    {users_limit(RLIMIT_DATA), "ulimit -d"},
                                                    {group_memory(), "the control group of this process"}};
  const auto value = [](const auto& limit) { return limit.first > 0 ? limit.first : std::numeric_limits<int64_t>::max(); };
  const auto& [least, name] = *std::ranges::min_element(limits, {}, value);
  return least > 0 ? fmt::format(" ({} allows {} MiB)", name, least >> 20) : "";
}

void check_room_for_threads(int64_t count) {
  static std::atomic<int64_t> known = 0;
  if (count <= known || memory_limit_text().empty()) return;
  std::mutex lock;
  std::condition_variable over;
  bool ended = false;
  std::vector<std::thread> threads;
  bool room = true;
  try {
    while (int64_t(threads.size()) < count)
      threads.emplace_back([&] {
        std::unique_lock held(lock);
        over.wait(held, [&] { return ended; });
      });
  } catch (const std::exception&) {
    room = false;
  }
  {
    const std::lock_guard held(lock);
    ended = true;
  }
  over.notify_all();
  for (std::thread& t : threads) t.join();
  if (!room)
    throw ConfigError(fmt::format("there is not enough memory to start {}{}: a larger limit or fewer processors (taskset -c 0) are needed",
                                  counted(count, "thread"), memory_limit_text()));
  known = count;
}

}  // namespace brume
