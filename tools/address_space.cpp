// A limit on the address space (`ulimit -v`) below what the libraries of this program take to start ends it with an error. OpenBLAS
// allocates a buffer for each thread in its constructor and tries without end if it gets none; constructors of LibTorch end the process. So
// the limit is compared before the constructors of any library run, when nothing but calls of the system may be used, and no memory but the
// stack.
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
#include <string_view>

namespace {

constexpr int64_t mib = int64_t{1} << 20;
constexpr int64_t buffer = 128 * mib;       ///< of OpenBLAS, for each thread
constexpr int64_t constructors = 44 * mib;  ///< take this at most, with LibTorch 1.13

/// Returns the bytes that are mapped: the first number of /proc/self/statm, in pages.
int64_t mapped() {
  char text[200] = {};
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  const ssize_t count = read(file, text, sizeof text - 1);
  close(file);
  return count > 0 ? std::atoll(text) * sysconf(_SC_PAGESIZE) : 0;
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

void refuse_small_limit(int, char**, char** environment) {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const int64_t count = dl_iterate_phdr(is_openblas, nullptr) ? threads(environment) : 0;
  const int64_t without = mapped() + constructors, needed = without + count * buffer;
  if (limit.rlim_cur >= rlim_t(needed)) return;
  char fewer[100] = "";
  if (count > 1)
    std::snprintf(fewer, sizeof fewer, " with %d threads, %d MiB with OMP_NUM_THREADS=1", int(count), int((without + buffer) / mib));
  dprintf(STDERR_FILENO, "error: there is not enough memory to start (ulimit -v allows %d MiB): %d MiB are needed%s\n",
          int(int64_t(limit.rlim_cur) / mib), int(needed / mib) + 1, fewer);
  _exit(2);
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const before_constructors)(int, char**, char**) = &refuse_small_limit;

}  // namespace

#endif
