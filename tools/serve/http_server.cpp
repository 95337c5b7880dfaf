// The server on cpp-httplib, with deadlines and bounds for what it reads.
#include <fmt/format.h>
#include <httplib.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/out_of_memory.h"
#include "brume/config/utf8.h"
#include "serve/bounded_stream.h"
#include "serve/connection_queue.h"
#include "serve/form.h"
#include "serve/http.h"
#include "serve/pictures.h"

namespace brume::tools {
namespace {

constexpr size_t longest_target = 2048;
constexpr size_t small_body = 1 << 20;               ///< that is always read
constexpr const char* type_of_body = "X-Body-Type";  ///< of the request's Content-Type, which the library would act on

/// The connection that this thread serves.
thread_local BoundedStream* connection = nullptr;
/// Set if the body of a request stays unread: nothing after it on the connection can be a request.
thread_local bool unread = false;

/// Bytes of bodies that are in memory.
class BodyBudget {
 public:
  explicit BodyBudget(size_t most) : most_(most) {}
  /// Reserves bytes for the request of this thread until it is answered. Returns false if too many are in use.
  bool take(size_t bytes) {
    if (bytes <= small_body) return true;
    if (used_.fetch_add(bytes) + bytes > most_) return used_ -= bytes, false;
    taken_ += bytes;
    return true;
  }
  void give_back() { used_ -= std::exchange(taken_, 0); }

 private:
  const size_t most_;
  std::atomic<size_t> used_{0};
  inline static thread_local size_t taken_ = 0;
};

HttpAnswer answer_of(int status, const std::string& message, const std::string& field = "", const std::string& code = "") {
  HttpAnswer answer;
  answer.status = status;
  answer.body = error_json(status, message, field, code);
  // OpenAI's clients would send again what failed on the server's side.
  if (status >= 500 || status == 429) answer.header["X-Should-Retry"] = status == 429 || code == "busy" ? "true" : "false";
  if (status == 429 || code == "busy") answer.header["Retry-After"] = "1";
  return answer;
}

class BoundedServer final : public httplib::Server {
 public:
  BoundedServer(const ServerOptions& options, const std::atomic<bool>& stopping)
      : bodies(options.bodies * options.most_bytes), options_(options), stopping_(stopping) {
    new_task_queue = [this] { return new ConnectionQueue(size_t(options_.connections), options_.waiting, waiting_); };
  }
  BodyBudget bodies;

 private:
  bool process_and_close_socket(socket_t socket) override {
    if (refusing) {
      refuse(socket);
    } else {
      BoundedStream stream(socket, options_, stopping_, waiting_);
      connection = &stream;
      try {
        serve_all(stream);
      } catch (const std::exception&) {  // of memory: this connection ends, the others go on
      }
      bodies.give_back();
      connection = nullptr;
    }
    ::shutdown(socket, SHUT_WR);
    if (!refusing) discard(socket);
    ::close(socket);
    return true;
  }

  void serve_all(BoundedStream& stream) {
    bool closed = false;
    while (!closed && stream.begin()) {
      unread = false;
      const auto set_up = [&](httplib::Request& request) {
        request.ranges.clear();
        request.headers.erase(type_of_body);
        if (request.has_header("Content-Type")) request.headers.emplace(type_of_body, request.get_header_value("Content-Type"));
        request.headers.erase("Content-Type");  // its forms are parsed by regular expressions
        stream.begin_body();
      };
      const bool served = serve_one(stream, closed, set_up);
      bodies.give_back();
      if (!served || unread) return;
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

  /// Answers a connection that is one too many, without reading it.
  static void refuse(int socket) {
    const std::string body = answer_of(503, "too many connections wait; try again later", "", "busy").body;
    const std::string answer = fmt::format(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: "
        "{}\r\n\r\n{}",
        body.size(), body);
    ::send(socket, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
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
  std::atomic<size_t> waiting_{0};
};

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
  socket_t listening = -1;

  explicit State(ServerOptions o) : options(std::move(o)), server(options, stopping) {}
  void set_up();
  HttpAnswer answer(const httplib::Request& r) const;
  void check(const httplib::Request& r, const std::string& path) const;
  void check_key(const httplib::Request& r, const std::string& path) const;
  void check_origin(const httplib::Request& r) const;
  const Route& route(const std::string& method, const std::string& path, std::vector<std::string>& names) const;
  void reserve(const httplib::Request& r);
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

/// Returns the key of a request: of "Authorization: Bearer KEY", of the password of "Basic", or of "X-Api-Key".
std::string key_in(const httplib::Request& r) {
  const std::string given = r.get_header_value("Authorization");
  if (given.starts_with("Bearer ")) return given.substr(7);
  if (!given.starts_with("Basic ")) return r.get_header_value("X-Api-Key");
  const std::string pair = base64_decoded(std::string_view(given).substr(6), "Authorization");
  const size_t colon = pair.find(':');
  return colon == pair.npos ? "" : pair.substr(colon + 1);
}

/// Returns true if the body is read by the library: it has one, in a way that is understood.
bool has_body(const httplib::Request& r) { return r.has_header("Content-Length") || r.has_header("Transfer-Encoding"); }

}  // namespace

void Server::State::check_origin(const httplib::Request& r) const {
  if (r.get_header_value_count("Host") > 1) throw HttpError(400, "the host is named twice", "Host");
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
  if (!equal_in_constant_time(options.api_key, key_in(r)))
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
  if (r.has_header("Transfer-Encoding") &&
      (r.get_header_value_count("Transfer-Encoding") > 1 || lower_case(r.get_header_value("Transfer-Encoding")) != "chunked"))
    throw HttpError(400, "is neither absent nor 'chunked'", "Transfer-Encoding");
  if (!r.has_header("Content-Length")) return;
  const std::string length = r.get_header_value("Content-Length");
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

/// Reserves memory for the body that follows.
void Server::State::reserve(const httplib::Request& r) {
  const auto bytes = parse_number<uint64_t>(r.get_header_value("Content-Length"));
  if (!server.bodies.take(bytes ? size_t(*bytes) : options.most_bytes))
    throw HttpError(503, "too many large bodies arrive at once; try again later", "Content-Length", "busy");
}

HttpRequest Server::State::request_of(const httplib::Request& r, const std::string& path) const {
  HttpRequest request;
  request.method = r.method;
  request.path = path;
  request.query = query_of(r.target);
  request.body = r.body;
  request.client = r.remote_addr;
  for (const auto& [name, value] : r.headers) request.header.emplace(lower_case(name), value);
  const std::string type = request.header_value(lower_case(type_of_body));
  if (!type.empty()) request.header["content-type"] = type;
  if (is_form(type)) request.parts = form_parts(type, request.body);
  const bool asks = r.version == "HTTP/1.1";
  request.alive = [stream = connection, this, asks] { return !stopping.load() && !stream->peer_gone(asks); };
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
        if (stopping.load() || (connection && connection->peer_gone(false))) return false;
        return sink.write(piece.data(), piece.size());
      });
    } catch (const std::exception&) {  // the answer has begun: it ends here
    }
    sink.done();
    return true;
  });
}

void Server::State::set_up() {
  server.set_payload_max_length(options.most_bytes);
  server.set_tcp_nodelay(true);
  server.set_keep_alive_max_count(1000);
  server.set_socket_options([this](socket_t socket) {  // the library's own would share a port that is in use
    const int yes = 1;
    ::setsockopt(listening = socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  server.set_pre_routing_handler([this](const httplib::Request& r, httplib::Response& res) {
    using Result = httplib::Server::HandlerResponse;
    try {
      const std::string path = path_of(r);
      check(r, path);
      std::vector<std::string> names;
      route(r.method, path, names);
      if (has_body(r) && r.method == "POST") {
        reserve(r);
        return Result::Unhandled;  // its body is read, then answered below
      }
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
  ::listen(state_->listening, SOMAXCONN);  // the library lets 5 connections wait to be accepted
  return int(o.port);
}

void Server::serve() { state_->server.listen_after_bind(); }
bool Server::stopping() const { return state_->stopping.load(); }
void Server::stop() {
  state_->stopping = true;
  state_->server.stop();
}

}  // namespace brume::tools
