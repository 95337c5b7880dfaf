// A thread of GCC's OpenMP spins for some milliseconds before it sleeps. On cores that other programs use as well it spins while the
// thread it waits for cannot run, and training becomes three to ten times slower. With a short spin it loses nothing to speak of on
// either. libgomp reads GOMP_SPINCOUNT when it is loaded and has no function that sets it later, so the program starts a second time with
// the variable set, if its command computes: before the constructors of any library have run, LibTorch's above all, which take most of the
// time of a start.
//
// Nothing is done if GOMP_SPINCOUNT or OMP_WAIT_POLICY is set (which is also what ends the second start), or under a debugger.
#include <string_view>  // and what the C library is called

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#include <fcntl.h>
#include <unistd.h>

namespace {

/// Iterations of libgomp's waiting loop before a thread sleeps; docs/performance.md has the measurements.
constexpr const char* variable = "GOMP_SPINCOUNT=1000";

/// The commands whose time is spent in the network.
constexpr std::string_view computing[] = {"train", "sample",  "evaluate", "encode",   "likelihood", "invert",
                                          "bench", "conform", "serve",    "quantize", "statistics"};

bool computes(std::string_view word) {
  for (const std::string_view command : computing)
    if (word == command) return true;
  return false;
}

bool is_traced() {
  char text[4096];
  const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const ssize_t count = read(file, text, sizeof text);
  close(file);
  const std::string_view status(text, count > 0 ? size_t(count) : 0), name = "TracerPid:\t";
  const size_t at = status.find(name);
  return at != status.npos && status.substr(at + name.size(), 2) != "0\n";
}

/// Runs before the constructors, so that nothing but calls of the system may be used, and no memory but the stack.
void limit_spinning(int argc, char** argv, char** environment) {
  bool wanted = false;
  for (int i = 1; i < argc; ++i) wanted = wanted || computes(argv[i]);
  size_t count = 0;
  for (; environment[count]; ++count) {
    const std::string_view entry = environment[count];
    if (entry.starts_with("GOMP_SPINCOUNT=") || entry.starts_with("OMP_WAIT_POLICY=")) return;
  }
  constexpr size_t most = 4000;
  if (!wanted || count >= most || is_traced()) return;
  const char* extended[most + 2];
  for (size_t i = 0; i < count; ++i) extended[i] = environment[i];
  extended[count] = variable;
  extended[count + 1] = nullptr;
  char program[4096];  // the file's own name, which is the process's name in `ps` as well
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = '\0';
  execve(program, argv, const_cast<char**>(extended));
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const before_constructors)(int, char**, char**) = &limit_spinning;

}  // namespace

#endif
