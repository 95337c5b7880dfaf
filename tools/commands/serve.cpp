// brume serve [MODELS...] --runs DIR
#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "program/outputs.h"
#include "program/program.h"
#include "serve/a1111_routes.h"
#include "serve/http.h"
#include "serve/job_routes.h"
#include "serve/openai_routes.h"
#include "serve/page_routes.h"
#include "serve/run_routes.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::vector<std::string> models;
  std::string runs = "runs", images, loras, preview_decoder;
  ServerOptions server;
  JobOptions jobs;
  Overrides overrides;
  double memory = 0, upload = 64;
  bool no_auth = false;
};

bool is_loopback(const std::string& address) { return address.starts_with("127.") || address == "localhost" || address == "::1"; }

void check(const Arguments& a) {
  if (!is_loopback(a.server.address) && a.server.api_key.empty() && !a.no_auth)
    throw ConfigError(
        fmt::format("--listen {}: other machines could use the server; --api-key KEY asks them for a key, --no-auth lets everybody in",
                    a.server.address));
  for (const std::string& model : a.models)
    if (!std::filesystem::exists(model)) throw ConfigError(fmt::format("MODELS: there is no file or folder '{}'", model));
  if (!a.loras.empty() && !std::filesystem::is_directory(a.loras))
    throw ConfigError(fmt::format("--loras: there is no folder '{}'", a.loras));
  if (!a.preview_decoder.empty() && !std::filesystem::exists(a.preview_decoder))
    throw ConfigError(fmt::format("--preview-decoder: there is no file '{}'", a.preview_decoder));
  check_folder("--runs", a.runs);
  check_folder("--images", a.images);
}

ShelfOptions shelf_options(const Arguments& a) {
  ShelfOptions o;
  o.models.assign(a.models.begin(), a.models.end());
  o.runs = a.runs;
  o.loras = a.loras;
  o.preview_decoder = a.preview_decoder;
  o.memory = uint64_t(std::llround(a.memory * 1e9));
  o.open.device = a.overrides.device;
  o.open.precision = a.overrides.precision;
  o.open.threads = a.overrides.threads;
  o.open.settings = a.overrides.set;
  return o;
}

/// Stops the server after Ctrl-C or SIGTERM. Ends the process if a step of sampling takes longer than 4 s more: every file on disk is
/// whole, and the next start shows the job as interrupted.
void watch(Server& server, Jobs& jobs, const std::atomic<bool>& ended) {
  while (!interrupted.load() && !server.stopping()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(4);
  jobs.stop();
  server.stop();
  while (std::chrono::steady_clock::now() < patience && !ended.load()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  if (!ended.load()) _exit(0);
}

int serve(Program& program, Arguments a) {
  if (a.images.empty()) a.images = (std::filesystem::path(a.runs) / "images").string();
  check(a);
  std::filesystem::create_directories(a.runs);
  a.server.most_bytes = size_t(a.upload * 1e6);
#ifdef M_ARENA_MAX
  ::mallopt(M_ARENA_MAX, 4);  // else each of the threads of connections keeps what its largest request took
#endif
  std::atomic<bool> ended{false};
  std::thread watcher;
  {
    ModelShelf shelf(program.registry, shelf_options(a));
    JobStore store(a.images);
    Server server(a.server);
    Jobs jobs(shelf, store, a.jobs);
    add_job_routes(server, jobs);
    add_model_routes(server, shelf, program.registry);
    add_openai_routes(server, jobs);
    add_a1111_routes(server, jobs);
    Trainings trainings(a.runs, program.plugins);
    add_run_routes(server, program.registry, a.runs, trainings);
    add_openapi_route(server);
    add_page_routes(server);  // last: they take every name at the root
    const int port = server.bind();
    fmt::print("brume serves on http://{}:{}\n", a.server.address, port);
    std::fflush(stdout);
    catch_interrupt();
    watcher = std::thread([&] { watch(server, jobs, ended); });
    server.serve();
    server.stop();
    jobs.stop();
  }
  ended = true;
  watcher.join();
  return 0;
}

}  // namespace

void add_serve(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("serve", "serves a page for the browser, and APIs that make images");
  auto a = std::make_shared<Arguments>();
  if (const char* key = std::getenv("BRUME_API_KEY")) a->server.api_key = key;
  command.add_option("models", a->models, "models, and folders that hold them").type_name("MODELS");
  command.add_option("--runs", a->runs, "directory of trainings, whose models are served too").capture_default_str().type_name("DIR");
  command.add_option("--images", a->images, "directory of what is made; RUNS/images if not given").type_name("DIR");
  command.add_option("--loras", a->loras, "directory of LoRAs that requests may name").type_name("DIR");
  command
      .add_option("--preview-decoder", a->preview_decoder,
                  "a small first stage, as brume import makes of TAESD: shows previews of models with its latents")
      .type_name("FILE");
  command.add_option("--listen", a->server.address, "address to listen on").capture_default_str().type_name("ADDRESS");
  command.add_option("--port", a->server.port, "0 = one that is free").capture_default_str().check(between(0, 65535));
  command.add_option("--api-key", a->server.api_key, "key that every request must carry (also: BRUME_API_KEY)").type_name("KEY");
  command.add_flag("--no-auth", a->no_auth, "lets other machines in without a key");
  command.add_option("--memory", a->memory, "gigabytes of weights that stay open; 0 = without a bound")
      .capture_default_str()
      .check(between(0.0, 1e6));
  command.add_option("--queue", a->jobs.queue, "jobs that may wait").capture_default_str().check(between(1, 100000));
  command.add_option("--batch", a->jobs.batch, "images that are sampled at once, of one request or of several")
      .capture_default_str()
      .check(between(1, 1024));
  command.add_option("--time-limit", a->jobs.time_limit, "seconds that a job may sample; 0 = without a bound")
      .capture_default_str()
      .check(between(0, 10000000));
  command.add_option("--most-images", a->jobs.limits.images, "images of one request").capture_default_str().check(between(1, 100000));
  command.add_option("--most-pixels", a->jobs.limits.pixels, "pixels of an image, made or given")
      .capture_default_str()
      .check(between(1, 1 << 30));
  command.add_option("--upload", a->upload, "megabytes of a request").capture_default_str().check(between(0.001, 2000.0));
  a->overrides.add_to(command);
  command.callback([&program, &code, a] { code = serve(program, *a); });
}

}  // namespace brume::tools
