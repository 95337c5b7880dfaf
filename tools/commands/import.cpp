// brume import SOURCE
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <filesystem>

#include "brume/config/counted.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/classifier_pipeline.h"
#include "brume/diffusion/pipeline.h"
#include "brume/files/hub_cache.h"
#include "brume/interop/import/import.h"
#include "brume/nn/blocks/layers.h"
#include "brume/train/options.h"
#include "brume/weights/safetensors.h"
#include "program/outputs.h"
#include "program/program.h"
#include "sampling/arguments.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Arguments {
  std::string source, out, config, vae;
  std::vector<std::string> set;
  bool overwrite = false;
};

/// Returns the weights that the configuration makes, without their memory: nothing is written to them.
std::vector<Weight> weights_of(const Config& config, const Files& files) {
  const nn::SkipInit follow;
  if (config.classifier) return ClassifierPipeline(*config.classifier, {}).weights();
  if (config.autoencoder)
    return prefixed("autoencoder.", config.autoencoder->network.make({config.autoencoder->image, 0, &files, &no_models()})->weights());
  return Pipeline(config.model, {}, 0, &files).weights();
}

/// Everything that sampling would find wrong: the configuration, and whether each tensor is in its place. Then the sections have
/// every key written out, as those of a training have.
void check(Program& program, Imported& model, const std::string& source) {
  Value root = Value::map();
  root.set(model.section, model.options);
  if (!model.sample.is_null()) root.set("sample", model.sample);
  Value resolved;
  const Config config = read_stored_configuration(program.registry, root, source, {}, &resolved);
  if (model.section == "model") config.sample.check(config.model);
  fitting(source, model.tensors, weights_of(config, model.files));
  model.options = *resolved.find(model.section);
  if (!model.sample.is_null()) model.sample = *resolved.find("sample");
}

uint64_t parameters_of(const NamedTensors& tensors) {
  uint64_t count = 0;
  for (const NamedTensor& t : tensors) count += uint64_t(t.tensor.numel());
  return count;
}

void import_to_file(Program& program, Arguments a) {
  a.source = from_hub(a.source);
  if (fs::exists(a.source) && fs::exists(a.out) && fs::equivalent(a.source, a.out))
    throw ConfigError(fmt::format("-o {}: is the source itself, which would be lost; name another file", a.out));
  if (fs::exists(a.out) && !a.overwrite) throw ConfigError(fmt::format("-o {}: exists already; --overwrite replaces it", a.out));
  check_file("-o", a.out);
  const Source source = open_source(a.source);
  if (ModelMetadata(source.metadata).is_brume()) throw ConfigError(fmt::format("{}: is a brume model already", a.source));
  ImportOptions options{import_settings("--set", a.set), {}};
  if (!a.vae.empty()) options.settings["vae"] = a.vae;
  options.config = a.config;
  Imported model = import_model(source, options);
  check(program, model, a.source);
  const Contents contents = contents_of(model);
  make_parent(a.out);
  write_safetensors(a.out, contents.tensors, contents.metadata.entries());
  fmt::print("{}: {}, {} parameters in {}\n", a.source, family_of(source)->name, parameters_of(model.tensors),
             counted(model.tensors.size(), "tensor"));
  for (const std::string& loss : model.losses) fmt::print("  not in it: {}\n", loss);
  fmt::print("{}\n", a.out);
}

}  // namespace

void add_import(Command app, Program& program, int&) {
  const Command command =
      app.add_subcommand("import", "converts a model of another program to a brume model: one file that holds its configuration");
  auto a = std::make_shared<Arguments>();
  command.add_option("source", a->source, "a diffusers directory, or a weights file").required().type_name("SOURCE");
  command.add_option("-o,--out", a->out, "the brume model").required().type_name("FILE.safetensors");
  command.add_option("--config", a->config, "a YAML or JSON file that says what the weights are").type_name("FILE");
  command
      .add_option("--vae,--first-stage", a->vae,
                  "the first stage, if the source lacks it: a file of CompVis' or diffusers' names, or a diffusers directory")
      .type_name("FILE");
  command.add_option("--set", a->set, "a setting that the source does not hold, under the name that its program gives it")
      .type_name("KEY=VALUE")
      .take_all();
  command.add_flag("--overwrite", a->overwrite, "replaces the file if it exists");
  command.callback([&program, a] { import_to_file(program, *a); });
}

}  // namespace brume::tools
