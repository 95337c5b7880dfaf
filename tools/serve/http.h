#pragma once
// Requests and answers of the server, and what it refuses before a route sees it. http_server.cpp alone includes cpp-httplib, whose header
// takes long to compile.
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace brume::tools {

/// One part of a body of type multipart/form-data.
struct FormPart {
  std::string name;
  std::string_view content;  ///< of the body
  std::string file_name;
};

struct HttpRequest {
  std::string method, path;                                ///< "GET", "/api/v1/jobs"
  std::map<std::string, std::string, std::less<>> query;   ///< decoded
  std::map<std::string, std::string, std::less<>> header;  ///< by names in lower case
  std::vector<std::string> names;                          ///< what stands in the path for {name}s of the route, decoded
  std::string_view body;                                   ///< lives as long as the handler runs
  std::vector<FormPart> parts;
  std::string client;           ///< address of the peer
  std::function<bool()> alive;  ///< false if the peer has closed the connection, both halves of it, or the server stops

  /// Returns a header or a value of the query; "" if it is absent.
  std::string header_value(std::string_view name) const;
  std::string query_value(std::string_view name) const;
};

/// Writes a piece of an answer. Returns false if the peer is gone or the server stops.
using HttpWrite = std::function<bool(std::string_view piece)>;

struct HttpAnswer {
  int status = 200;
  std::string body{};
  std::string type = "application/json";
  std::map<std::string, std::string> header{};
  std::function<void(const HttpWrite&)> stream{};  ///< writes the body piece by piece, instead of `body`
};

/// A fault that is answered with this status.
class HttpError : public std::runtime_error {
 public:
  /// Makes an error. `field`: of the request, "" if it is none. `code`: a word for programs, "unknown_model".
  HttpError(int status, const std::string& message, std::string field = "", std::string code = "")
      : std::runtime_error(message), status(status), field(std::move(field)), code(std::move(code)) {}
  const int status;
  const std::string field, code;
};

/// Returns {"error": {"message", "type", "param", "code"}, "detail": message}: the error object of OpenAI's API, and the text that clients
/// of A1111's look for.
std::string error_json(int status, const std::string& message, const std::string& field = "", const std::string& code = "");

using HttpHandler = std::function<HttpAnswer(const HttpRequest&)>;

/// What a route does, for the OpenAPI document.
struct RouteNote {
  std::string summary;
  std::string body{};    ///< JSON Schema of the body; "" = no body
  std::string answer{};  ///< JSON Schema of the answer; "" = any object
};

struct Route {
  std::string method, pattern;  ///< "GET", "/api/v1/jobs/{id}": {id} is one segment, {name...} the rest of the path
  HttpHandler handler;
  RouteNote note;
};

struct ServerOptions {
  std::string address = "127.0.0.1";
  int64_t port = 7860;                                  ///< 0 = one that is free
  std::string api_key{};                                ///< "" = none is needed
  size_t most_bytes = 64 << 20;                         ///< of a body
  int connections = 64;                                 ///< that are served at once
  size_t waiting = 256;                                 ///< connections that may wait for those; more are answered 503
  size_t bodies = 4;                                    ///< bodies of `most_bytes` that may be in memory at once
  std::chrono::seconds header_time{10}, body_time{60};  ///< in which a request must have arrived
};

/// An HTTP server. Routes are added before start(); their handlers run on several threads. A ConfigError of a handler is answered with 400.
class Server {
 public:
  explicit Server(ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  void add(const std::string& method, const std::string& pattern, RouteNote note, HttpHandler handler);
  const std::vector<Route>& routes() const;
  const ServerOptions& options() const;

  /// Opens the port and returns it. Throws ConfigError if it is in use or cannot be opened.
  int bind();
  /// Serves until stop().
  void serve();
  /// Ends open connections and makes serve() return. May be called from another thread.
  void stop();
  bool stopping() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Returns true if both texts are equal, in a time that depends on the length of `given` alone.
bool equal_in_constant_time(std::string_view expected, std::string_view given);

/// Returns the text with %XX and, in a query, + decoded. Throws HttpError 400 if it is malformed or no UTF-8.
std::string url_decoded(std::string_view text, bool query);

/// Fills `names` and returns true if the path fits the pattern of a route. Throws HttpError as url_decoded.
bool path_fits(std::string_view pattern, std::string_view path, std::vector<std::string>& names);

}  // namespace brume::tools
