// brume check CONFIG, brume inspect FILE|DIR.
#include <fmt/format.h>

#include <filesystem>

#include "brume/config/yaml.h"
#include "brume/diffusion/stability.h"
#include "brume/diffusion/unused_options.h"
#include "brume/experiments/sweep.h"
#include "brume/files/hub_cache.h"
#include "brume/interop/import/import.h"
#include "brume/interop/inspect.h"
#include "brume/train/source.h"
#include "commands/open_data.h"
#include "program/program.h"

namespace brume::tools {
namespace {

/// By the ending: what begins a file would have to be read to tell more.
bool is_weights_file(const std::string& path) {
  for (const char* ending : {".safetensors", ".pt", ".pth", ".ckpt", ".bin"})
    if (path.ends_with(ending)) return true;
  return false;
}

/// Returns the configuration that a model holds, or would hold once it were imported.
Value stored_configuration(const std::string& path) {
  Value root = Value::map();
  const Contents contents = open_model(path);
  for (const char* section : {"model", "classifier", "autoencoder", "sample"})
    if (contents.metadata.has(section)) root.set(section, contents.metadata.section(section, path));
  return root;
}

/// Warns of a run that diverges, and of options that it does not depend on.
void warn_of_sampling(const Registry& registry, const Value& root, const Config& config) {
  if (const auto warning = divergence_warning(config.model, config.sample)) print_warning(*warning);
  const ModelOptions& model = config.model;
  const ImageShape latent = model.autoencoder.weightless() ? model.autoencoder.make({model.image})->latent(model.image) : model.image;
  for (const std::string& warning : unused_options(registry, root, model, latent, config.sample)) print_warning(warning);
}

/// Opens the data sets of a training and reads the header of every image.
void check_data(const Config& config, const std::string& file) {
  if (!config.train) throw ConfigError(fmt::format("--data: {} has no section 'train', and so no data", file));
  catch_interrupt();
  const auto check = [&](const std::string& name, const Deferred<Dataset>& wanted) {
    const std::shared_ptr<const Dataset> data = wanted.make({config.image()});
    print_inventory(name, *data);
    check_images(name, *data);
  };
  check("train.data", config.train->data);
  if (config.train->test) check("train.test.data", config.train->test->data);
}

}  // namespace

void add_check(Command app, Program& program, int&) {
  const Command command = app.add_subcommand("check", "finds every mistake in a configuration, without opening weights");
  struct Arguments {
    std::string config;
    bool show = false, data = false;
    Overrides overrides;
  };
  auto args = std::make_shared<Arguments>();
  command.add_option("config", args->config, "a YAML file").required().type_name("CONFIG");
  command.add_flag("--show", args->show, "prints the resolved configuration, of a model's file too");
  command.add_flag("--data", args->data, "opens the data sets too, and reads the header of every image");
  args->overrides.add_to(command);
  command.callback([&program, args] {
    const bool weights = is_weights_file(args->config);
    if (weights && !args->show)
      throw ConfigError(fmt::format(
          "{0}: is a weights file, no configuration; `brume check --show {0}` prints the one it holds, `brume inspect {0}` what "
          "else is in it",
          args->config));
    Value root = weights ? stored_configuration(args->config) : load_yaml(args->config), resolved;
    args->overrides.apply(root);
    if (root.find("sweep")) {
      const Sweep sweep = expand_sweep(root);
      check_runs(program.registry, sweep, std::filesystem::path(args->config).parent_path());
      fmt::print(stderr, "{}: a sweep of {} runs\n", args->config, sweep.runs.size());
      root.erase("sweep");
    }
    const Config config = read_training(program.registry, root, std::filesystem::path(args->config).parent_path(), &resolved);
    if (args->data) check_data(config, args->config);
    if (config.model.network) warn_of_sampling(program.registry, root, config);
    if (args->show)
      fmt::print("{}", dump_yaml(resolved));
    else
      fmt::print("{}: no mistakes\n", args->config);
  });
}

void add_inspect(Command app, Program&, int&) {
  const Command command = app.add_subcommand("inspect", "shows the contents of a safetensors or PyTorch file, or of a model directory");
  struct Arguments {
    std::string path;
    bool json = false;
  };
  auto args = std::make_shared<Arguments>();
  command.add_option("file", args->path, "*.safetensors, *.pt, *.pth, *.ckpt, or a directory of them").required().type_name("FILE");
  command.add_flag("--json", args->json, "for programs: one JSON object");
  command.callback([args] {
    const std::string path = from_hub(args->path);
    fmt::print("{}", args->json ? inspect_json(path) : inspect(path));
  });
}

}  // namespace brume::tools
