// brume: train, sample and explain diffusion models from one YAML file.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>

#include "brume/config/foreign.h"
#include "brume/config/out_of_memory.h"
#include "brume/config/plugin_loader.h"
#include "brume/config/version.h"
#include "brume/core/interruption.h"
#include "brume/core/memory_limit.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/compute.h"
#include "brume/distributed/world.h"
#include "program/program.h"
#include "sampling/replay.h"

namespace brume::tools {
namespace {

int report(const ConfigError& e) {
  for (const Problem& p : e.problems()) fmt::print(stderr, "error: {}\n", p.text());
  return 2;
}

/// Throws ConfigError instead of an error that may be the fault of a loaded plugin library.
void name_libraries(const Registry& registry, const std::exception& e) {
  const std::vector<std::string> libraries = registry.libraries();
  if (libraries.empty() || dynamic_cast<const std::filesystem::filesystem_error*>(&e) || out_of_memory(e)) return;
  throw ConfigError(fmt::format("{} (the fault of brume or of the plugin library {})", brief(e), fmt::join(libraries, " or ")));
}

/// What the text of an error about memory is made in.
std::unique_ptr<char[]> reserve(new char[1 << 18]);

void print_memory_error(const std::string& asked) {
  reserve.reset();
  std::string limit;
  try {
    limit = memory_limit_text();
  } catch (const std::exception&) {  // there is not even enough for this
  }
  fmt::print(stderr, "error: there is not enough memory{}{}: a smaller model, image or batch needs less\n", asked, limit);
}

/// Memory that runs out where no exception may pass (a thread of a library, a destructor) ends the process with the usual line.
[[noreturn]] void end_process() {
  try {
    if (std::current_exception()) std::rethrow_exception(std::current_exception());
  } catch (const std::exception& e) {
    const auto asked = out_of_memory(e);
    if (asked) print_memory_error(*asked);
    if (!asked) fmt::print(stderr, "brume has a bug, please report it: {}\n", brief(e));
    std::fflush(nullptr);
    _exit(asked ? 2 : 1);
  } catch (...) {
  }
  std::abort();
}

std::string version_text() {
  return fmt::format("brume {}{}", version(), world_backend().empty() ? " (built without gloo: it trains in one process only)" : "");
}

void add_commands(Command app, Program& program, int& code) {
  add_train(app, program, code);
  add_launch(app, program, code);
  add_sweep(app, program, code);
  add_runs(app, program, code);
  add_report(app, program, code);
  add_sample(app, program, code);
  add_serve(app, program, code);
  add_encode(app, program, code);
  add_quantize(app, program, code);
  add_evaluate(app, program, code);
  add_statistics(app, program, code);
  add_likelihood(app, program, code);
  add_invert(app, program, code);
  add_conform(app, program, code);
  add_list(app, program, code);
  add_describe(app, program, code);
  add_check(app, program, code);
  add_inspect(app, program, code);
  add_import(app, program, code);
  add_adapter(app, program, code);
  add_new(app, program, code);
  add_bench(app, program, code);
  add_schema(app, program, code);
  add_plot(app, program, code);
  add_tokenizer(app, program, code);
  add_export(app, program, code);
  add_ema(app, program, code);
}

int run(int argc, char** argv) {
  CommandLine line("brume", "brume: latent and conditional diffusion models from one YAML file", version_text());
  const Command app = line.root();
  Program program;
  int code = 0;
  app.add_option("--plugin", program.plugins, "a plugin library to load (also: the folders in BRUME_PLUGIN_PATH)")
      .type_name("FILE")
      .allow_extra_args(false);  // one file each, or `--plugin x.so config.yaml` would take both
  register_builtins(program.registry);
  const WarningScope warnings(print_warning);
  const StopScope stop([] { return interrupted.load(); });
  program.registry.on_warning([](const Problem& warning) { print_warning(warning.text()); });
  line.before_commands([&] {
    for (const auto& library : plugin_path_libraries()) load_plugin(program.registry, library);
    for (const std::string& library : program.plugins) load_plugin(program.registry, library);
  });
  add_commands(app, program, code);
  try {
    if (const auto ended = line.run(replayed({argv + 1, argv + argc}))) return *ended;
  } catch (const ConfigError&) {
    throw;
  } catch (const WorldError&) {
    throw;
  } catch (const Interrupted&) {
    throw;
  } catch (const std::exception& e) {
    name_libraries(program.registry, e);
    throw;
  }
  return code;
}

}  // namespace
}  // namespace brume::tools

namespace {

/// Returns the exit code.
int run_or_report(int argc, char** argv) {
  try {
    return brume::tools::run(argc, argv);
  } catch (const brume::ConfigError& e) {
    return brume::tools::report(e);
  } catch (const brume::WorldError& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    std::fflush(nullptr);
    _exit(3);  // threads may wait for the lost process for ever
  } catch (const brume::Interrupted&) {
    fmt::print(stderr, "interrupted\n");
    return 130;
  } catch (const std::filesystem::filesystem_error& e) {
    fmt::print(stderr, "error: {}: {}\n", e.path1().string(), e.code().message());
    return 2;
  } catch (const std::exception& e) {
    if (const auto asked = brume::out_of_memory(e)) {
      brume::tools::print_memory_error(*asked);
      return 2;
    }
    fmt::print(stderr, "brume has a bug, please report it: {}\n", brume::brief(e));
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  brume::prepare_process();
  std::set_terminate(brume::tools::end_process);
  const int code = run_or_report(argc, argv);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  std::fflush(nullptr);
  _exit(code);  // without LibTorch's destructors, which take a tenth of a second and save nothing
#endif
  return code;
}
