// brume serve [MODELS...] --runs DIR
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "program/outputs.h"
#include "program/program.h"
#include "serve/http.h"
#include "serve/page_routes.h"
#include "serve/run_routes.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string runs = "runs";
  ServerOptions server;
  bool no_auth = false;
};

bool is_loopback(const std::string& address) { return address.starts_with("127.") || address == "localhost" || address == "::1"; }

void check_address(const Arguments& a) {
  if (is_loopback(a.server.address) || !a.server.api_key.empty() || a.no_auth) return;
  throw ConfigError(
      fmt::format("--listen {0}: other machines could use the server; --api-key KEY asks them for a key, --no-auth lets everybody in",
                  a.server.address));
}

/// Stops the server after Ctrl-C or SIGTERM.
void watch(Server& server) {
  while (!interrupted.load() && !server.stopping()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  server.stop();
}

int serve(const Program& program, const Arguments& a) {
  check_address(a);
  check_folder("--runs", a.runs);
  std::filesystem::create_directories(a.runs);
  Trainings trainings(a.runs, program.plugins);
  Server server(a.server);
  add_run_routes(server, program.registry, a.runs, trainings);
  add_page_routes(server);
  const int port = server.bind();
  fmt::print("brume serves on http://{}:{}\n", a.server.address, port);
  std::fflush(stdout);
  catch_interrupt();
  std::thread watcher([&] { watch(server); });
  server.serve();
  server.stop();
  watcher.join();
  return 0;
}

}  // namespace

void add_serve(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("serve", "a page in the browser, and APIs that make images");
  auto a = std::make_shared<Arguments>();
  if (const char* key = std::getenv("BRUME_API_KEY")) a->server.api_key = key;
  command.add_option("--runs", a->runs, "directory of trainings").capture_default_str().type_name("DIR");
  command.add_option("--listen", a->server.address, "address to listen on").capture_default_str().type_name("ADDRESS");
  command.add_option("--port", a->server.port, "0 = one that is free").capture_default_str().check(between(0, 65535));
  command.add_option("--api-key", a->server.api_key, "key that every request must carry (also: BRUME_API_KEY)").type_name("KEY");
  command.add_flag("--no-auth", a->no_auth, "lets other machines in without a key");
  command.callback([&program, &code, a] { code = serve(program, *a); });
}

}  // namespace brume::tools
