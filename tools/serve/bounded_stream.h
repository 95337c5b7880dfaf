#pragma once
// The socket of a connection, with deadlines and bounds for what is read and written. Includes cpp-httplib: for http_server.cpp alone.
#include <httplib.h>
#include <netdb.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "brume/config/number.h"
#include "serve/http.h"

namespace brume::tools {

/// Requests must arrive in time and within bounds, however slowly each byte comes; answers must be taken at a rate. `waiting` counts the
/// connections that wait for a thread: while there are some, this one may not be idle and must hurry.
class BoundedStream final : public httplib::Stream {
 public:
  using Clock = std::chrono::steady_clock;

  BoundedStream(int socket, const ServerOptions& options, const std::atomic<bool>& stopping, const std::atomic<size_t>& waiting)
      : socket_(socket), options_(options), stopping_(stopping), waiting_(waiting) {}

  /// Waits for the first byte of the next request, and begins it. While other connections wait, one that has had its answer is not waited
  /// for.
  bool begin() {
    hurried_ = Clock::now() + (answered_ ? Clock::duration{} : hurried_time);
    answered_ = true;
    if (begin_ == end_ && !wait(POLLIN, Clock::now() + idle_time)) return false;
    const auto now = Clock::now();
    left_ = most_header_bytes, deadline_ = now + options_.header_time, hurried_ = now + hurried_time;
    blocked_ = {}, written_ = 0;
    return true;
  }
  /// Begins the body of a request, after its header.
  void begin_body() {
    left_ = options_.most_bytes + most_header_bytes;
    deadline_ = Clock::now() + options_.body_time, hurried_ = Clock::time_point::max();
  }

  /// Returns true if the peer has closed the connection. A peer that has closed its half of it alone still waits for an answer. `ask`:
  /// tells both apart by an interim response, which a closed connection rejects: the next call knows.
  bool peer_gone(bool ask) {
    pollfd p{socket_, POLLRDHUP, 0};
    if (::poll(&p, 1, 0) <= 0) return false;
    if (p.revents & (POLLERR | POLLHUP)) return true;
    if (!ask || Clock::now() < ask_at_) return false;
    ask_at_ = Clock::now() + ask_time;
    constexpr std::string_view interim = "HTTP/1.1 100 Continue\r\n\r\n";
    return ::send(socket_, interim.data(), interim.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0;
  }

  bool is_readable() const override { return begin_ < end_ || wait(POLLIN, deadline_); }
  bool is_writable() const override { return wait(POLLOUT, Clock::now() + write_time); }
  ssize_t read(char* to, size_t size) override {
    if (begin_ == end_) {
      if (left_ == 0 || !wait(POLLIN, deadline_)) return -1;
      const ssize_t got = ::recv(socket_, buffer_, std::min(sizeof buffer_, left_), 0);
      if (got <= 0) return got;
      begin_ = 0, end_ = size_t(got), left_ -= size_t(got);
    }
    const size_t n = std::min(size, end_ - begin_);
    std::memcpy(to, buffer_ + begin_, n);
    begin_ += n;
    return ssize_t(n);
  }
  ssize_t write(const char* from, size_t size) override {
    const auto begun = Clock::now();
    if (!wait(POLLOUT, begun + write_time)) return -1;
    blocked_ += Clock::now() - begun;
    if (blocked_ > write_time + std::chrono::milliseconds(written_ / slowest_peer)) return -1;
    const ssize_t sent = ::send(socket_, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) written_ += size_t(sent);
    return sent < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : sent;
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override { address(::getpeername, ip, port); }
  void get_local_ip_and_port(std::string& ip, int& port) const override { address(::getsockname, ip, port); }
  socket_t socket() const override { return socket_; }

 private:
  static constexpr size_t most_header_bytes = 32 << 10;
  static constexpr auto idle_time = std::chrono::seconds(10);    ///< that a connection may wait for its next request
  static constexpr auto hurried_time = std::chrono::seconds(2);  ///< for a header while others wait
  static constexpr auto write_time = std::chrono::seconds(30);
  static constexpr auto ask_time = std::chrono::seconds(5);
  static constexpr size_t slowest_peer = 16;  ///< bytes per millisecond, after write_time
  static constexpr int slice_ms = 100;        ///< after which a wait looks if the server stops

  bool wait(short events, Clock::time_point until) const {
    while (events != POLLIN || !stopping_.load()) {  // an answer is still written
      const auto now = Clock::now();
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - now).count();
      if (left <= 0) return false;
      pollfd p{socket_, events, 0};
      const int ready = ::poll(&p, 1, int(std::min<int64_t>(left, slice_ms)));
      if (ready > 0) return true;
      if (ready < 0 && errno != EINTR) return false;
      if (events == POLLIN && waiting_.load() > 0 && now > hurried_) return false;
    }
    return false;
  }
  template <class Get>
  void address(Get get, std::string& ip, int& port) const {
    sockaddr_storage all{};
    socklen_t size = sizeof all;
    char host[NI_MAXHOST] = "", service[NI_MAXSERV] = "";
    auto* plain = reinterpret_cast<sockaddr*>(&all);
    if (get(socket_, plain, &size) == 0)
      ::getnameinfo(plain, size, host, sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV);
    ip = host, port = parse_number<int>(service).value_or(0);
  }

  const int socket_;
  const ServerOptions& options_;
  const std::atomic<bool>& stopping_;
  const std::atomic<size_t>& waiting_;
  size_t left_ = most_header_bytes;  ///< bytes that may still be read
  Clock::time_point deadline_{}, hurried_{}, ask_at_{};
  Clock::duration blocked_{};  ///< time that writing an answer has waited for the peer
  size_t written_ = 0;
  bool answered_ = false;
  char buffer_[4096];
  size_t begin_ = 0, end_ = 0;
};

}  // namespace brume::tools
