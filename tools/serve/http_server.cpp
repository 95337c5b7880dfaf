// The server on cpp-httplib, with deadlines and bounds for what it reads.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <httplib.h>
#include <netdb.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/out_of_memory.h"
#include "brume/config/utf8.h"
#include "serve/http.h"

namespace brume::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t most_header_bytes = 32 << 10;
constexpr size_t longest_target = 2048;
constexpr auto idle_time = std::chrono::seconds(10);  ///< that a connection may wait for its next request
constexpr auto write_time = std::chrono::seconds(30);
constexpr int slice_ms = 100;  ///< after which a wait looks if the server stops

/// A socket whose requests must arrive in time and within bounds, however slowly each byte comes.
class BoundedStream final : public httplib::Stream {
 public:
  BoundedStream(int socket, const ServerOptions& options, const std::atomic<bool>& stopping)
      : socket_(socket), options_(options), stopping_(stopping) {}

  /// Begins the next request.
  void begin() { left_ = most_header_bytes, deadline_ = Clock::now() + options_.header_time; }
  /// Begins the body of a request, after its header.
  void begin_body() { left_ = options_.most_bytes + most_header_bytes, deadline_ = Clock::now() + options_.body_time; }
  /// Waits for the first byte of a request.
  bool wait_for_request() const { return wait(POLLIN, Clock::now() + idle_time); }
  bool peer_closed() const {
    pollfd p{socket_, POLLRDHUP, 0};
    return ::poll(&p, 1, 0) > 0;
  }

  bool is_readable() const override { return wait(POLLIN, deadline_); }
  bool is_writable() const override { return !peer_closed() && wait(POLLOUT, Clock::now() + write_time); }
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
    if (!wait(POLLOUT, Clock::now() + write_time)) return -1;
    return ::send(socket_, from, size, MSG_NOSIGNAL);
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override { address(::getpeername, ip, port); }
  void get_local_ip_and_port(std::string& ip, int& port) const override { address(::getsockname, ip, port); }
  socket_t socket() const override { return socket_; }

 private:
  bool wait(short events, Clock::time_point until) const {
    while (events != POLLIN || !stopping_.load()) {  // an answer is still written
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
      if (left <= 0) return false;
      pollfd p{socket_, events, 0};
      const int ready = ::poll(&p, 1, int(std::min<int64_t>(left, slice_ms)));
      if (ready > 0) return true;
      if (ready < 0 && errno != EINTR) return false;
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
    ip = host, port = std::atoi(service);
  }

  const int socket_;
  const ServerOptions& options_;
  const std::atomic<bool>& stopping_;
  size_t left_ = most_header_bytes;  ///< bytes that may still be read
  Clock::time_point deadline_{};
  char buffer_[4096];
  size_t begin_ = 0, end_ = 0;
};

/// The connection that this thread serves.
thread_local BoundedStream* connection = nullptr;
/// Set if the body of a request stays unread: nothing after it on the connection can be a request.
thread_local bool unread = false;

class BoundedServer final : public httplib::Server {
 public:
  BoundedServer(const ServerOptions& options, const std::atomic<bool>& stopping) : options_(options), stopping_(stopping) {}

 private:
  bool process_and_close_socket(socket_t socket) override {
    BoundedStream stream(socket, options_, stopping_);
    connection = &stream;
    try {
      serve_all(stream);
    } catch (const std::exception&) {  // of memory: this connection ends, the others go on
    }
    connection = nullptr;
    ::shutdown(socket, SHUT_WR);
    discard(socket);
    ::close(socket);
    return true;
  }

  void serve_all(BoundedStream& stream) {
    bool closed = false;
    while (!closed && stream.wait_for_request()) {
      unread = false;
      stream.begin();
      const auto set_up = [&](httplib::Request& request) {
        request.ranges.clear();
        stream.begin_body();
      };
      if (!serve_one(stream, closed, set_up) || unread) return;
    }
  }

  template <class SetUp>
  bool serve_one(BoundedStream& stream, bool& closed, const SetUp& set_up) {
    std::string peer, here;
    int peer_port = 0, port = 0;
    stream.get_remote_ip_and_port(peer, peer_port);
    stream.get_local_ip_and_port(here, port);
    return request_of(*this, stream, peer, peer_port, here, port, closed, set_up);
  }

  /// Calls process_request() of the installed version of the library: later ones take the addresses too.
  template <class S, class SetUp>
  static bool request_of(S& server, BoundedStream& stream, const std::string& peer, int peer_port, const std::string& here, int port,
                         bool& closed, const SetUp& set_up) {
    if constexpr (requires { server.process_request(stream, false, closed, set_up); })
      return server.process_request(stream, false, closed, set_up);
    else
      return server.process_request(stream, peer, peer_port, here, port, false, closed, set_up);
  }

  /// Reads what a peer still sends for a short while, so that it receives the answer instead of a reset.
  static void discard(int socket) {
    char buffer[4096];
    for (int i = 0; i < 64; ++i) {
      pollfd p{socket, POLLIN, 0};
      if (::poll(&p, 1, 20) <= 0 || ::recv(socket, buffer, sizeof buffer, MSG_DONTWAIT) <= 0) return;
    }
  }

  const ServerOptions& options_;
  const std::atomic<bool>& stopping_;
};

HttpAnswer answer_of(int status, const std::string& message, const std::string& field = "", const std::string& code = "") {
  HttpAnswer answer;
  answer.status = status;
  answer.body = error_json(status, message, field, code);
  return answer;
}

/// Returns what an address names as its host, without the port: of "http://localhost:7860", "localhost".
std::string_view host_of(std::string_view text) {
  if (const size_t scheme = text.find("://"); scheme != text.npos) text.remove_prefix(scheme + 3);
  text = text.substr(0, text.find('/'));
  if (text.starts_with("[")) return text.substr(0, text.find(']') + 1);
  return text.substr(0, text.find(':'));
}

}  // namespace

struct Server::State {
  ServerOptions options;
  std::atomic<bool> stopping{false};
  std::vector<Route> routes;
  BoundedServer server;

  explicit State(ServerOptions o) : options(std::move(o)), server(options, stopping) {}
  void set_up();
  HttpAnswer answer(const httplib::Request& r) const;
  void check(const httplib::Request& r, const std::string& path) const;
  void check_key(const httplib::Request& r, const std::string& path) const;
  void check_origin(const httplib::Request& r) const;
  const Route& route(const std::string& method, const std::string& path, std::vector<std::string>& names) const;
  HttpRequest request_of(const httplib::Request& r, const std::string& path) const;
  HttpAnswer called(const HttpHandler& handler, const HttpRequest& request) const;
  void write(const HttpAnswer& answer, httplib::Response& res) const;
};

namespace {

std::string path_of(const httplib::Request& r) {
  if (r.target.size() > longest_target) throw HttpError(414, fmt::format("the address is longer than {} bytes", longest_target));
  return r.target.substr(0, r.target.find_first_of("?#"));
}

std::map<std::string, std::string, std::less<>> query_of(const std::string& target) {
  std::map<std::string, std::string, std::less<>> query;
  const size_t begin = target.find('?');
  std::string_view rest = begin == target.npos ? std::string_view() : std::string_view(target).substr(begin + 1);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    const size_t equals = std::min(pair.find('='), pair.size());
    if (!pair.empty())
      query[url_decoded(pair.substr(0, equals), true)] = equals < pair.size() ? url_decoded(pair.substr(equals + 1), true) : "";
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return query;
}

/// Returns true if the body is read by the library: it has one, in a way that is understood.
bool has_body(const httplib::Request& r) { return r.has_header("Content-Length") || r.has_header("Transfer-Encoding"); }

}  // namespace

void Server::State::check_origin(const httplib::Request& r) const {
  const std::string host(host_of(r.get_header_value("Host")));
  const bool local = options.address.starts_with("127.") || options.address == "localhost" || options.address == "::1";
  if (local && host != "127.0.0.1" && host != "localhost" && host != "[::1]" && host != options.address)
    throw HttpError(403, fmt::format("the host '{}' is not this server: it listens on {}", host, options.address), "Host", "wrong_host");
  const std::string origin = r.get_header_value("Origin");
  if (!origin.empty() && origin.substr(std::min(origin.size(), origin.find("://") + 3)) != r.get_header_value("Host"))
    throw HttpError(403, "pages of other sites may not use this server", "Origin", "wrong_origin");
  if (r.get_header_value("Sec-Fetch-Site") == "cross-site" && r.method != "GET")
    throw HttpError(403, "pages of other sites may not use this server", "Sec-Fetch-Site", "wrong_origin");
}

void Server::State::check_key(const httplib::Request& r, const std::string& path) const {
  const bool api = path.starts_with("/api/") || path.starts_with("/v1/") || path.starts_with("/sdapi/");
  if (options.api_key.empty() || !api) return;
  std::string given = r.get_header_value("Authorization");
  given = given.starts_with("Bearer ") ? given.substr(7) : r.get_header_value("X-Api-Key");
  if (!equal_in_constant_time(options.api_key, given))
    throw HttpError(401, "this server needs its API key, as 'Authorization: Bearer KEY'", "Authorization", "invalid_api_key");
}

void Server::State::check(const httplib::Request& r, const std::string& path) const {
  for (const auto& [name, value] : r.headers)
    if (invalid_utf8(name) || invalid_utf8(value)) throw HttpError(400, "a header is no UTF-8");
  if (r.get_header_value_count("Content-Length") > 1 || (r.has_header("Content-Length") && r.has_header("Transfer-Encoding")))
    throw HttpError(400, "the length of the body is given twice", "Content-Length");
  check_origin(r);
  check_key(r, path);
  if (r.has_header("Content-Encoding") && r.get_header_value("Content-Encoding") != "identity")
    throw HttpError(415, "bodies are taken as they are, not compressed", "Content-Encoding");
  const std::string length = r.get_header_value("Content-Length");
  if (length.empty()) return;
  const auto bytes = parse_number<uint64_t>(length);
  if (!bytes) throw HttpError(400, "is no number of bytes", "Content-Length");
  if (*bytes > options.most_bytes)
    throw HttpError(413, fmt::format("the body has {} bytes; at most {} are read", *bytes, options.most_bytes), "Content-Length",
                    "too_large");
}

const Route& Server::State::route(const std::string& method, const std::string& path, std::vector<std::string>& names) const {
  std::string allowed;
  for (const Route& r : routes) {
    if (!path_fits(r.pattern, path, names)) continue;
    if (r.method == method || (r.method == "GET" && method == "HEAD")) return r;
    if (allowed.find(r.method) == allowed.npos) allowed += (allowed.empty() ? "" : ", ") + r.method;
  }
  if (allowed.empty()) throw HttpError(404, fmt::format("there is nothing at {}", in_quotes(path)), "", "not_found");
  throw HttpError(405, fmt::format("{} takes {}", in_quotes(path), allowed), "", "wrong_method");
}

HttpRequest Server::State::request_of(const httplib::Request& r, const std::string& path) const {
  HttpRequest request;
  request.method = r.method;
  request.path = path;
  request.query = query_of(r.target);
  request.body = r.body;
  request.client = r.remote_addr;
  for (const auto& [name, value] : r.headers) request.header.emplace(lower_case(name), value);
  for (const auto& [name, file] : r.files) request.parts.push_back({name, file.content, file.filename});
  request.alive = [stream = connection, this] { return !stopping.load() && !stream->peer_closed(); };
  return request;
}

HttpAnswer Server::State::called(const HttpHandler& handler, const HttpRequest& request) const try {
  return handler(request);
} catch (const HttpError& e) {
  return answer_of(e.status, e.what(), e.field, e.code);
} catch (const ConfigError& e) {
  return answer_of(400, e.what(), e.problems().empty() ? "" : e.problems().front().path);
} catch (const std::exception& e) {
  if (out_of_memory(e)) return answer_of(503, "there is not enough memory for this request", "", "out_of_memory");
  return answer_of(500, fmt::format("this is a fault of brume, please report it: {}", e.what()));
}

HttpAnswer Server::State::answer(const httplib::Request& r) const try {
  const std::string path = path_of(r);
  HttpRequest request = request_of(r, path);
  return called(route(r.method, path, request.names).handler, request);
} catch (const HttpError& e) {
  return answer_of(e.status, e.what(), e.field, e.code);
}

void Server::State::write(const HttpAnswer& answer, httplib::Response& res) const {
  res.status = answer.status;
  for (const auto& [name, value] : answer.header) res.set_header(name, value);
  res.set_header("X-Content-Type-Options", "nosniff");
  res.set_header("Referrer-Policy", "no-referrer");
  if (!res.has_header("Cache-Control")) res.set_header("Cache-Control", "no-store");
  if (!answer.stream) return res.set_content(answer.body, answer.type);
  res.set_chunked_content_provider(answer.type, [this, stream = answer.stream](size_t, httplib::DataSink& sink) {
    try {
      stream([&](std::string_view piece) {
        if (stopping.load() || (connection && connection->peer_closed())) return false;
        return sink.write(piece.data(), piece.size());
      });
    } catch (const std::exception&) {  // the answer has begun: it ends here
    }
    sink.done();
    return true;
  });
}

void Server::State::set_up() {
  server.new_task_queue = [this] { return new httplib::ThreadPool(size_t(options.connections)); };
  server.set_payload_max_length(options.most_bytes);
  server.set_tcp_nodelay(true);
  server.set_keep_alive_max_count(1000);
  server.set_socket_options([](socket_t socket) {  // the library's own would share a port that is in use
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  server.set_pre_routing_handler([this](const httplib::Request& r, httplib::Response& res) {
    using Result = httplib::Server::HandlerResponse;
    try {
      const std::string path = path_of(r);
      check(r, path);
      std::vector<std::string> names;
      route(r.method, path, names);
      if (has_body(r) && r.method == "POST") return Result::Unhandled;  // its body is read, then answered below
      unread = has_body(r) && r.get_header_value("Content-Length") != "0";
      write(answer(r), res);
    } catch (const HttpError& e) {
      unread = has_body(r);
      write(answer_of(e.status, e.what(), e.field, e.code), res);
    }
    return Result::Handled;
  });
  server.Post(R"([\s\S]*)", [this](const httplib::Request& r, httplib::Response& res) { write(answer(r), res); });
  server.set_error_handler([this](const httplib::Request&, httplib::Response& res) {
    if (!res.body.empty()) return;
    unread = true;
    const char* text = res.status == 413   ? "the body is too large"
                       : res.status == 414 ? "the address is too long"
                                           : "the request is malformed, cut short or too slow";
    write(answer_of(res.status, text), res);
  });
}

Server::Server(ServerOptions options) : state_(std::make_unique<State>(std::move(options))) { state_->set_up(); }
Server::~Server() { stop(); }

void Server::add(const std::string& method, const std::string& pattern, RouteNote note, HttpHandler handler) {
  state_->routes.push_back({method, pattern, std::move(handler), std::move(note)});
}

const std::vector<Route>& Server::routes() const { return state_->routes; }
const ServerOptions& Server::options() const { return state_->options; }

int Server::bind() {
  ServerOptions& o = state_->options;
  const bool bound =
      o.port == 0 ? (o.port = state_->server.bind_to_any_port(o.address)) > 0 : state_->server.bind_to_port(o.address, int(o.port));
  if (!bound) {
    const std::string why = errno ? std::strerror(errno) : "it is no address of this machine";
    throw ConfigError(fmt::format("the server cannot listen on {}:{}: {}; --port chooses another port, --port 0 one that is free",
                                  o.address, o.port, why));
  }
  return int(o.port);
}

void Server::serve() { state_->server.listen_after_bind(); }
bool Server::stopping() const { return state_->stopping.load(); }
void Server::stop() {
  state_->stopping = true;
  state_->server.stop();
}

}  // namespace brume::tools
