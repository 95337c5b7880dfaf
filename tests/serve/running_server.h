#pragma once
// A server of this build, and requests to it as bytes.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace brume::test {

struct Reply {
  int status = 0;                             ///< 0 if the server closed the connection without an answer
  std::map<std::string, std::string> header;  ///< by names in lower case
  std::string body;
  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
};

/// `brume serve` on a free port, until stop().
class RunningServer {
 public:
  RunningServer(std::vector<std::string> arguments, const std::filesystem::path& folder);
  ~RunningServer();
  RunningServer(const RunningServer&) = delete;
  RunningServer& operator=(const RunningServer&) = delete;

  Reply get(const std::string& path) const;
  Reply post(const std::string& path, const std::string& body, const std::vector<std::string>& header = {}) const;
  /// Sends bytes as they are, and reads until the server closes the connection. `ends`: says that nothing follows them.
  Reply send(const std::string& bytes, bool ends = false) const;
  /// Opens a connection and sends bytes. Returns its socket.
  int connected_to(const std::string& bytes) const;
  /// Sends more bytes on a connection, reads until the server closes it, and closes it.
  static Reply finished(int socket, const std::string& bytes, bool ends = false);
  /// Sends bytes and closes the connection.
  void leave(const std::string& bytes) const;
  /// Submits a job and waits until it has ended. Returns it.
  nlohmann::json made(const nlohmann::json& request) const;
  /// Waits until a job has ended.
  nlohmann::json ended(const std::string& id) const;
  bool alive() const;
  /// Returns the bytes of memory that the process takes.
  int64_t memory() const;
  /// Sends a signal and waits. Returns the exit code, or 128 + the signal that ended the server.
  int stop(int signal);
  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  int process_ = -1, port_ = 0;
};

inline Reply parsed(std::string bytes) {
  Reply reply;
  while (bytes.starts_with("HTTP/1.1 100 Continue\r\n\r\n")) bytes.erase(0, 25);  // interim answers
  const size_t end = bytes.find("\r\n\r\n");
  if (end == bytes.npos || !bytes.starts_with("HTTP/1.1 ")) return reply;
  reply.status = std::stoi(bytes.substr(9, 3));
  for (size_t at = bytes.find("\r\n"); at < end;) {
    const size_t next = bytes.find("\r\n", at + 2), colon = bytes.find(':', at);
    if (colon < next) {
      std::string name = bytes.substr(at + 2, colon - at - 2);
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return char(std::tolower(c)); });
      reply.header[name] = bytes.substr(colon + 2, next - colon - 2);
    }
    at = next;
  }
  reply.body = bytes.substr(end + 4);
  return reply;
}

inline RunningServer::RunningServer(std::vector<std::string> arguments, const std::filesystem::path& folder) {
  arguments.insert(arguments.begin(), {BRUME_BINARY_DIR "/brume", "serve"});
  arguments.insert(arguments.end(), {"--port", "0", "--threads", "1", "--precision", "fp32"});
  std::vector<char*> words;
  for (std::string& a : arguments) words.push_back(a.data());
  words.push_back(nullptr);
  int out[2];
  if (pipe(out) != 0) throw std::runtime_error("no pipe");
  process_ = fork();
  if (process_ == 0) {
    dup2(out[1], 1);
    close(out[0]), close(out[1]);
    if (chdir(folder.c_str()) == 0) execv(words[0], words.data());
    _exit(127);
  }
  close(out[1]);
  std::string line;
  for (char c; read(out[0], &c, 1) == 1 && c != '\n';) line += c;
  close(out[0]);
  const size_t colon = line.rfind(':');
  if (colon == line.npos) throw std::runtime_error("the server did not start: " + line);
  port_ = std::stoi(line.substr(colon + 1));
}

inline RunningServer::~RunningServer() {
  if (process_ > 0) stop(SIGKILL);
}

inline void send_all(int socket, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t sent = ::send(socket, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (sent <= 0) break;
    at += size_t(sent);
  }
}

inline int RunningServer::connected_to(const std::string& bytes) const {
  const int s = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET, to.sin_port = htons(uint16_t(port_)), to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(s, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
    close(s);
    throw std::runtime_error("the server does not answer");
  }
  send_all(s, bytes);
  return s;
}

inline void RunningServer::leave(const std::string& bytes) const { close(connected_to(bytes)); }

inline Reply RunningServer::send(const std::string& bytes, bool ends) const { return finished(connected_to(bytes), "", ends); }

inline Reply RunningServer::finished(int s, const std::string& bytes, bool ends) {
  send_all(s, bytes);
  if (ends) ::shutdown(s, SHUT_WR);
  std::string all;
  char buffer[4096];
  for (ssize_t n; (n = ::recv(s, buffer, sizeof buffer, 0)) > 0;) all.append(buffer, size_t(n));
  close(s);
  return parsed(all);
}

inline Reply RunningServer::get(const std::string& path) const {
  return send("GET " + path + " HTTP/1.1\r\nHost: " + host() + "\r\nConnection: close\r\n\r\n");
}

inline Reply RunningServer::post(const std::string& path, const std::string& body, const std::vector<std::string>& header) const {
  std::string bytes =
      "POST " + path + " HTTP/1.1\r\nHost: " + host() + "\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size());
  for (const std::string& line : header) bytes += "\r\n" + line;
  return send(bytes + "\r\n\r\n" + body);
}

inline nlohmann::json RunningServer::ended(const std::string& id) const {
  for (int i = 0; i < 600; ++i) {
    const nlohmann::json job = get("/api/v1/jobs/" + id).json();
    if (job.is_object() && job.value("state", "") != "queued" && job.value("state", "") != "running") return job;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  throw std::runtime_error("the job " + id + " does not end");
}

inline nlohmann::json RunningServer::made(const nlohmann::json& request) const {
  const Reply reply = post("/api/v1/jobs", request.dump());
  if (reply.status != 201) throw std::runtime_error("refused: " + reply.body);
  return ended(reply.json()["id"].get<std::string>());
}

inline bool RunningServer::alive() const { return ::kill(process_, 0) == 0 && ::waitpid(process_, nullptr, WNOHANG) == 0; }

inline int64_t RunningServer::memory() const {
  int64_t size = 0, resident = 0;
  std::ifstream("/proc/" + std::to_string(process_) + "/statm") >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

inline int RunningServer::stop(int signal) {
  ::kill(process_, signal);
  int status = 0;
  ::waitpid(process_, &status, 0);
  process_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace brume::test
