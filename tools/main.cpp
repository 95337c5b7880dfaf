// brume: train, sample and explain diffusion models from one YAML file.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <new>
#include <optional>
#include <string_view>

#include "config/plugin_loader.h"
#include "diffusion/compute.h"
#include "program.h"
#include "replay.h"

namespace brume::tools {
namespace {

int report(const ConfigError& e) {
  for (const Problem& p : e.problems()) fmt::print(stderr, "error: {}\n", p.text());
  return 2;
}

int run(int argc, char** argv) {
  CLI::App app{"brume: latent and conditional diffusion models from one YAML file", "brume"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("brume ") + BRUME_VERSION);
  Program program;
  int code = 0;
  app.add_option("--plugin", program.plugins, "a plugin library to load (also: the folders in BRUME_PLUGIN_PATH)")
      ->type_name("FILE")
      ->allow_extra_args(false);  // one file each, or `--plugin x.so config.yaml` would take both
  app.fallthrough();
  register_builtins(program.registry);
  // Plugins must be there before a command runs, and a command runs while the line is parsed.
  app.parse_complete_callback([&] {
    for (const auto& library : plugin_path_libraries()) load_plugin(program.registry, library);
    for (const std::string& library : program.plugins) load_plugin(program.registry, library);
  });
  add_train(app, program, code);
  add_sample(app, program, code);
  add_encode(app, program, code);
  add_evaluate(app, program, code);
  add_likelihood(app, program, code);
  add_invert(app, program, code);
  add_conform(app, program, code);
  add_list(app, program, code);
  add_describe(app, program, code);
  add_check(app, program, code);
  add_inspect(app, program, code);
  add_import(app, program, code);
  add_new(app, program, code);
  add_bench(app, program, code);
  add_schema(app, program, code);
  add_plot(app, program, code);
  add_tokenizer(app, program, code);
  add_export(app, program, code);
  try {
    std::vector<std::string> arguments = replayed({argv + 1, argv + argc});
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& e) {
    const int shown = app.exit(e);
    return shown == 0 ? 0 : 2;
  }
  return code;
}

/// " for 1024 bytes" where an allocation failed, as LibTorch says it; nothing where it is another error.
std::optional<std::string> memory_asked(const std::exception& e) {
  if (dynamic_cast<const std::bad_alloc*>(&e)) return "";
  const std::string_view what = e.what(), asked = "you tried to allocate ";
  if (what.find("can't allocate memory") == std::string_view::npos && what.find("out of memory") == std::string_view::npos) return {};
  const size_t from = what.find(asked), to = from == std::string_view::npos ? from : what.find(" bytes", from);
  if (to == std::string_view::npos) return "";
  return fmt::format(" for {} bytes", what.substr(from + asked.size(), to - from - asked.size()));
}

}  // namespace
}  // namespace brume::tools

int main(int argc, char** argv) {
  brume::prepare_process();
  try {
    return brume::tools::run(argc, argv);
  } catch (const brume::ConfigError& e) {
    return brume::tools::report(e);
  } catch (const brume::Interrupted&) {
    fmt::print(stderr, "interrupted\n");
    return 130;
  } catch (const std::filesystem::filesystem_error& e) {
    fmt::print(stderr, "error: {}: {}\n", e.path1().string(), e.code().message());
    return 2;
  } catch (const std::exception& e) {
    if (const auto asked = brume::tools::memory_asked(e)) {
      fmt::print(stderr, "error: there is not enough memory{}: a smaller model, image or batch needs less\n", *asked);
      return 2;
    }
    fmt::print(stderr, "brume has a bug, please report it: {}\n", e.what());
    return 1;
  }
}
