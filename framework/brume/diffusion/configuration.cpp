#include "brume/diffusion/configuration.h"

#include <algorithm>

#include "brume/config/plugin_loader.h"

namespace brume {
namespace {

void add_once(std::vector<std::string>& to, const std::string& text) {
  if (std::find(to.begin(), to.end(), text) == to.end()) to.push_back(text);
}

/// Loads the libraries under `plugins:`; returns their paths.
std::vector<std::string> load_named(Registry& registry, const Value& root) {
  std::vector<std::string> libraries;
  if (const Value* named = root.find("plugins"))
    for (const Value& library : named->items) {
      try {
        add_once(libraries, load_plugin(registry, library.scalar).string());
      } catch (const ConfigError& e) {
        throw e.located(library.place, "plugins");
      }
    }
  return libraries;
}

}  // namespace

void ModelConfig::declare_sections(Fields& f, const std::function<void(int models)>& train) {
  std::optional<ModelOptions> diffusion;
  f.section("model", diffusion, "a diffusion model");
  f.section("classifier", classifier, "instead of a model: a classifier of images");
  f.section("autoencoder", autoencoder, "instead of a model: a first stage, which maps images to latents and back");
  const int models = diffusion.has_value() + classifier.has_value() + autoencoder.has_value();
  f.require(models > 0, "model", "missing; a configuration has a 'model' (of diffusion), a 'classifier' or an 'autoencoder'");
  if (models > 1)  // a mistake, or the schema, which has all
    f.require(false, classifier ? "classifier" : "autoencoder",
              "does not stand alone; a configuration has one of 'model', 'classifier' "
              "and 'autoencoder'");
  train(models);
  if (diffusion || models == 0) f.section("sample", sample, "how the model is sampled");
  if (diffusion) model = std::move(*diffusion);
  f.section("compute", compute, "the device, precision and threads of the computation");
  f.field("plugins", plugins, "plugin libraries to load");
}

void ModelConfig::declare(Fields& f) {
  declare_sections(f, [](int) {});
}

void ModelConfig::check() const {
  if (classifier)
    classifier->check();
  else if (autoencoder)
    autoencoder->check();
  else
    model.check(), sample.check(model);
}

void check_located(const Value& root, const std::function<void()>& check) {
  try {
    check();
  } catch (const ConfigError& e) {
    std::vector<Problem> problems = e.problems();
    for (Problem& p : problems)
      if (!p.place.file && !p.path.empty()) p.place = nearest(root, p.path).place;
    throw ConfigError(std::move(problems));
  }
}

void read_into(ModelConfig& config, Registry& registry, const Value& root, const Entry::Declare& declare,
               const std::function<void()>& check, Value* resolved) {
  std::vector<std::string> libraries = load_named(registry, root);
  std::vector<PluginUse> uses;
  Value full = read_fields(registry, root, declare, "", &uses);
  check_located(root, check);
  for (const PluginUse& use : uses) {
    add_once(libraries, use.library);
    if (!use.path.starts_with("train.")) add_once(config.model_plugins, use.library);
  }
  Value named = Value::list();
  for (const std::string& library : libraries) named.items.push_back(Value::text(library, true));
  full.set("plugins", std::move(named));
  config.plugins = std::move(libraries);
  if (resolved) *resolved = std::move(full);
}

ModelConfig read_model_configuration(Registry& registry, const Value& root, Value* resolved) {
  ModelConfig config;
  const auto check = [&] {
    if (config.classifier || config.autoencoder || root.find("sample"))
      config.check();
    else
      config.model.check();  // whose sampler is not given yet: that of a model of codes is not the usual one
  };
  read_into(
      config, registry, root, [&](Fields& f) { config.declare(f); }, check, resolved);
  return config;
}

void read_stored(const Registry& registry, const std::string& file, const std::vector<std::string>& libraries,
                 const std::function<void()>& read) {
  try {
    read();
  } catch (const ConfigError& e) {
    std::vector<Problem> problems = missing_plugins(registry, file, libraries);
    problems.insert(problems.begin(), e.problems().begin(), e.problems().end());
    throw ConfigError(std::move(problems));
  }
}

}  // namespace brume
