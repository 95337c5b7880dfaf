// brume launch -n N -- COMMAND: the processes of a job on this machine, with the variables that torchrun sets.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "brume/core/processors.h"
#include "program/program.h"

namespace brume::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds grace(10);  ///< between SIGTERM and SIGKILL

struct Arguments {
  int64_t count = 0, threads = 0;
  std::vector<std::string> command;
};

/// Prints what comes out of a pipe line by line, each with a rank before it.
class Output {
 public:
  Output(int descriptor, std::FILE* to, int64_t rank) : descriptor_(descriptor), to_(to), head_(fmt::format("[{}] ", rank)) {
    ::fcntl(descriptor_, F_SETFL, O_NONBLOCK);
  }
  int descriptor() const { return descriptor_; }

  /// Prints the lines that have come.
  void take() {
    char bytes[4096];
    for (ssize_t n; (n = ::read(descriptor_, bytes, sizeof bytes)) > 0;) {
      text_.append(bytes, size_t(n));
      for (size_t end; (end = text_.find('\n')) != text_.npos; text_.erase(0, end + 1)) print(text_.substr(0, end));
    }
  }

  /// Prints the rest, after the process has ended.
  void close() {
    take();
    if (!text_.empty()) print(text_);
    ::close(descriptor_);
  }

 private:
  void print(const std::string& line) {
    fmt::print(to_, "{}{}\n", head_, line);
    std::fflush(to_);
  }

  int descriptor_;
  std::FILE* to_;
  std::string head_, text_;
};

struct Process {
  int64_t rank = 0;
  std::vector<Output> outputs;
};

/// Returns a port of 127.0.0.1 that nobody listens at.
uint16_t free_port() {
  const int s = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  auto* address = reinterpret_cast<sockaddr*>(&at);
  const bool bound = s >= 0 && ::bind(s, address, size) == 0 && ::getsockname(s, address, &size) == 0;
  const int error = errno;
  if (s >= 0) ::close(s);
  if (!bound) throw ConfigError(fmt::format("no port of 127.0.0.1 is free: {}", std::strerror(error)));
  return ntohs(at.sin_port);
}

/// Returns the variables of one process, as torchrun sets them, over those of this one.
std::vector<std::string> environment_of(const Arguments& a, int64_t rank, uint16_t port) {
  std::map<std::string, std::string> set{{"RANK", fmt::to_string(rank)},
                                         {"LOCAL_RANK", fmt::to_string(rank)},
                                         {"ROLE_RANK", fmt::to_string(rank)},
                                         {"WORLD_SIZE", fmt::to_string(a.count)},
                                         {"LOCAL_WORLD_SIZE", fmt::to_string(a.count)},
                                         {"ROLE_WORLD_SIZE", fmt::to_string(a.count)},
                                         {"GROUP_RANK", "0"},
                                         {"MASTER_ADDR", "127.0.0.1"},
                                         {"MASTER_PORT", fmt::to_string(port)},
                                         {"OMP_NUM_THREADS", fmt::to_string(a.threads > 0 ? a.threads : threads_per_process(a.count))}};
  std::vector<std::string> all;
  for (char** e = environ; *e; ++e)
    if (const std::string entry = *e; !set.contains(entry.substr(0, entry.find('=')))) all.push_back(entry);
  for (const auto& [name, value] : set) all.push_back(name + "=" + value);
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> all;
  for (std::string& word : words) all.push_back(word.data());
  all.push_back(nullptr);
  return all;
}

/// Starts one process of the job. Returns its id.
pid_t start(const Arguments& a, int64_t rank, uint16_t port, Process& process) {
  std::vector<std::string> words{"brume"}, variables = environment_of(a, rank, port);
  words.insert(words.end(), a.command.begin(), a.command.end());
  const std::vector<char*> argv = pointers(words), environment = pointers(variables);
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
    throw ConfigError(fmt::format("a process cannot be started: {}", std::strerror(errno)));
  const pid_t parent = ::getpid(), child = ::fork();
  if (child < 0) throw ConfigError(fmt::format("a process cannot be started: {}", std::strerror(errno)));
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::setpgid(0, 0);  // signals of the terminal reach it through this process, once
    ::dup2(out[1], 1), ::dup2(err[1], 2);
    ::execve("/proc/self/exe", argv.data(), environment.data());
    ::_exit(127);
  }
  ::close(out[1]), ::close(err[1]);
  process.rank = rank;
  process.outputs.emplace_back(out[0], stdout, rank);
  process.outputs.emplace_back(err[0], stderr, rank);
  return child;
}

volatile std::sig_atomic_t received = 0;

/// The processes of a job, until all have ended.
class Job {
 public:
  explicit Job(const Arguments& a) : apart_(a.command.front() == "sample" || a.command.front() == "encode") {
    const uint16_t port = free_port();
    for (int64_t rank = 0; rank < a.count; ++rank) {
      Process process;
      const pid_t id = start(a, rank, port, process);
      processes_.emplace(id, std::move(process));
    }
  }
  ~Job() { send(SIGKILL); }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  /// Prints what the processes print, and passes signals on, until the last has ended. Returns the exit code of the first that failed.
  int wait() {
    while (!processes_.empty()) {
      print_outputs();
      if (const int signal = received; signal != 0) received = 0, stopped_ = true, send(signal);
      if (deadline_ && Clock::now() > *deadline_) send(SIGKILL);
      collect();
    }
    return code_;
  }

 private:
  void send(int signal) const {
    for (const auto& [id, process] : processes_) ::kill(id, signal);
  }

  void print_outputs() {
    std::vector<pollfd> waiting;
    for (auto& [id, process] : processes_)
      for (Output& output : process.outputs) waiting.push_back({output.descriptor(), POLLIN, 0});
    ::poll(waiting.data(), waiting.size(), 100);
    for (auto& [id, process] : processes_)
      for (Output& output : process.outputs) output.take();
  }

  /// Notes the processes that have ended.
  void collect() {
    int status = 0;
    for (pid_t id; (id = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      const auto at = processes_.find(id);
      if (at == processes_.end()) continue;
      for (Output& output : at->second.outputs) output.close();
      const int64_t rank = at->second.rank;
      processes_.erase(at);
      const bool killed = WIFSIGNALED(status);
      const int code = killed ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      if (code != 0)
        failed(rank, code, killed ? fmt::format("was killed: {}", ::strsignal(WTERMSIG(status))) : fmt::format("ended with {}", code));
    }
  }

  /// Ends the others, unless each works for itself.
  void failed(int64_t rank, int code, const std::string& how) {
    if (code_ != 0) return;
    code_ = code;
    if (stopped_) return;
    fmt::print(stderr, "brume launch: rank {} {}; {}\n", rank, how,
               apart_ ? "the others go on; --missing makes its part" : "the others are ended");
    if (apart_) return;
    send(SIGTERM);
    deadline_ = Clock::now() + grace;
  }

  bool apart_;  ///< the processes do not need each other
  std::map<pid_t, Process> processes_;
  int code_ = 0;
  bool stopped_ = false;  ///< by a signal to this process
  std::optional<Clock::time_point> deadline_;
};

int launch(const Arguments& a) {
  if (a.command.front() == "launch") throw ConfigError("launch starts commands other than itself");
  if (const int64_t cores = threads_per_process(1); a.count > cores)
    print_warning(fmt::format("-n {}: there are {} processor cores", a.count, cores));
  struct sigaction action {};
  action.sa_handler = [](int signal) { received = signal; };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) ::sigaction(signal, &action, nullptr);
  return Job(a).wait();
}

}  // namespace

void add_launch(Command app, Program&, int& code) {
  const Command command = app.add_subcommand("launch", "divides the work of a command among several processes of this machine");
  auto a = std::make_shared<Arguments>();
  command.add_option("-n,--count", a->count, "number of processes").required().check(between(1, 4096));
  command.add_option("--threads", a->threads, "processor threads of each; 0 = the cores are divided")
      .capture_default_str()
      .check(between(0, 4096));
  command.add_option("command", a->command, "a command of brume with its arguments, after --").required().type_name("-- COMMAND ...");
  command.callback([&code, a] { code = launch(*a); });
}

}  // namespace brume::tools
