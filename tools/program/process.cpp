#include "program/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "brume/config/errors.h"

namespace brume::tools {

int start_process(const std::vector<std::string>& arguments, const std::string& log, int threads, bool apart) {
  std::vector<std::string> words{"brume"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string limit = fmt::format("OMP_NUM_THREADS={}", threads);
  std::vector<char*> environment;
  for (char** e = environ; *e; ++e)
    if (threads == 0 || !std::string_view(*e).starts_with("OMP_NUM_THREADS=")) environment.push_back(*e);
  if (threads > 0) environment.push_back(const_cast<char*>(limit.c_str()));
  environment.push_back(nullptr);
  const pid_t parent = ::getpid(), child = ::fork();
  if (child < 0) throw ConfigError(fmt::format("a process cannot be started: {}", std::strerror(errno)));
  if (child > 0) return int(child);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  if (apart) ::setpgid(0, 0);
  if (log.empty()) {
    ::dup2(2, 1);
  } else {
    const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0) ::_exit(126);
    ::dup2(file, 1), ::dup2(file, 2);
  }
  ::syscall(SYS_close_range, 3U, ~0U, 0U);  // connections and files of the parent
  ::execve("/proc/self/exe", argv.data(), environment.data());
  ::_exit(127);
}

namespace {

/// Waits for a child; -1 = any.
std::pair<int, int> wait_until_end(pid_t child) {
  int status = 0;
  pid_t id = -1;
  while ((id = ::waitpid(child, &status, 0)) < 0 && errno == EINTR) {
  }
  if (id < 0) throw std::logic_error("no process to wait for");
  return {int(id), WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status)};
}

}  // namespace

std::pair<int, int> wait_for_any() { return wait_until_end(-1); }

void wait_until_ended(int process) {
  siginfo_t info = {};
  while (::waitid(P_PID, id_t(process), &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
}

int wait_for(int process) { return wait_until_end(process).second; }

}  // namespace brume::tools
