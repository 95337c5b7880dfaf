// A limit on memory below what the libraries of this program take to start (`ulimit -v`, `ulimit -d`, a control group) ends it with an
// error. OpenBLAS allocates a buffer for each thread in its constructor and tries without end if it gets none; constructors of LibTorch end
// the process; in a small control group the system reads the code of libraries again and again. So limits are compared before the
// constructors of any library run, when nothing but calls of the system may be used, and no memory but the stack.
#include <cstdint>  // and what the C library is called

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string_view>

namespace {

constexpr int64_t mib = int64_t{1} << 20;
constexpr int64_t buffer = 128 * mib;       ///< of OpenBLAS, for each thread
constexpr int64_t constructors = 44 * mib;  ///< take this at most, with LibTorch 1.13
constexpr int64_t code = 32 * mib;          ///< of libraries, without which in memory nothing goes on

/// Reads a file of the system into `text`, or an empty one.
template <size_t size>
void read_file(const char* path, char (&text)[size]) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t count = file < 0 ? 0 : read(file, text, size - 1);
  text[std::max<ssize_t>(0, count)] = 0;
  if (file >= 0) close(file);
}

/// Returns a number of /proc/self/statm in bytes: 0 = the address space, 1 = what is in memory of it, 2 = and shared with files,
/// 5 = private memory.
int64_t own_memory(int index) {
  char text[200];
  read_file("/proc/self/statm", text);
  char* at = text;
  int64_t pages = 0;
  for (int i = 0; i <= index; ++i) pages = std::strtoll(at, &at, 10);
  return pages * sysconf(_SC_PAGESIZE);
}

/// Returns the smallest number in the files called `name` of a control group ("/a/b", which is cut off) and the groups above it.
int64_t smallest_limit(const char* mount, char* group, const char* name) {
  int64_t result = std::numeric_limits<int64_t>::max();
  for (char* end = group + std::strlen(group); end; end = std::strrchr(group, '/')) {
    *end = 0;
    char path[800], text[100];
    std::snprintf(path, sizeof path, "%s%s/%s", mount, group, name);
    read_file(path, text);
    if (const int64_t bytes = std::atoll(text); bytes > 0) result = std::min(result, bytes);  // "max" is no number
  }
  return result;
}

/// Returns the bytes that the control groups of this process may take.
int64_t group_limit() {
  char groups[4096];
  read_file("/proc/self/cgroup", groups);
  int64_t result = std::numeric_limits<int64_t>::max();
  for (char *rest = groups, *line = nullptr; (line = strsep(&rest, "\n"));) {
    strsep(&line, ":");
    const char* const controllers = line ? strsep(&line, ":") : nullptr;
    if (!controllers || !line) continue;
    if (!*controllers) result = std::min(result, smallest_limit("/sys/fs/cgroup", line, "memory.max"));
    if (std::strstr(controllers, "memory"))
      result = std::min(result, smallest_limit("/sys/fs/cgroup/memory", line, "memory.limit_in_bytes"));
  }
  return result;
}

int is_openblas(dl_phdr_info* library, size_t, void*) { return std::strstr(library->dlpi_name, "openblas") != nullptr; }

/// Returns the number of threads that OpenBLAS starts with.
int64_t threads(char** environment) {
  constexpr std::string_view name = "OMP_NUM_THREADS=";
  cpu_set_t set;
  int64_t count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  for (; *environment; ++environment)
    if (std::string_view(*environment).starts_with(name))
      if (const int64_t asked = std::atoll(*environment + name.size()); asked > 0) count = std::min(count, asked);
  return count;
}

[[noreturn]] void refuse(const char* limit, int64_t allowed, int64_t needed, const char* fewer) {
  dprintf(STDERR_FILENO, "error: there is not enough memory to start (%s allows %d MiB): %d MiB are needed%s\n", limit, int(allowed / mib),
          int(needed / mib) + 1, fewer);
  _exit(2);
}

/// Ends the process if a limit of `ulimit` leaves less than the `taken` bytes and what constructors take.
void compare(__rlimit_resource resource, const char* name, int64_t taken, int64_t threads) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const int64_t without = taken + constructors, needed = without + threads * buffer;
  if (limit.rlim_cur >= rlim_t(needed)) return;
  char fewer[100] = "";
  if (threads > 1)
    std::snprintf(fewer, sizeof fewer, " with %d threads, %d MiB with OMP_NUM_THREADS=1", int(threads), int((without + buffer) / mib));
  refuse(name, int64_t(limit.rlim_cur), needed, fewer);
}

void refuse_small_limit(int, char**, char** environment) {
  const int64_t count = dl_iterate_phdr(is_openblas, nullptr) ? threads(environment) : 0;
  compare(RLIMIT_AS, "ulimit -v", own_memory(0), count);
  compare(RLIMIT_DATA, "ulimit -d", own_memory(5), count);
  const int64_t needed = own_memory(1) - own_memory(2) + constructors + code;
  if (const int64_t group = group_limit(); group < needed) refuse("the control group of this process", group, needed, "");
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const before_constructors)(int, char**, char**) = &refuse_small_limit;

}  // namespace

#endif
