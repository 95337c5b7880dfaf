#include "model_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "config/yaml.h"
#include "diffusion/checkpoint.h"

namespace brume::tools {
namespace {

const Value* walk(const Value& root, const std::string& path) {
  const Value* v = &root;
  for (size_t start = 0; v && start <= path.size();) {
    const size_t dot = std::min(path.find('.', start), path.size());
    const std::string key = path.substr(start, dot - start);
    size_t index = 0;
    if (v->is_list()) {
      const bool good = std::from_chars(key.data(), key.data() + key.size(), index).ec == std::errc() && index < v->items.size();
      v = good ? &v->items[index] : nullptr;
    } else {
      v = v->find(key);
    }
    start = dot + 1;
  }
  return v;
}

/// A checkpoint's model is what it is: an override may repeat it, not contradict it.
void refuse_model_overrides(const Value& root, const std::vector<std::string>& assignments, const std::string& file) {
  for (const std::string& a : assignments) {
    const size_t equals = a.find('=');
    if (!a.starts_with("model") || equals == std::string::npos) continue;
    const Value* have = walk(root, a.substr(0, equals));
    const std::string wanted = a.substr(equals + 1);
    if (have && have->is_scalar() && have->scalar == wanted) continue;
    throw ConfigError(fmt::format("--set {}: {} has {} = {}; a checkpoint's model cannot be changed", a, file, a.substr(0, equals),
                                  have ? (have->is_scalar() ? have->scalar : have->kind_text()) : "nothing"));
  }
}

/// --cfg SCALE: the scale of the guidance `cfg`, which is put in front where there is none.
void set_cfg(Value& root, const std::string& scale) {
  const std::string label = "--cfg " + scale;
  Value* sample = root.find("sample");
  Value* list = sample ? sample->find("guidance") : nullptr;
  if (list && list->is_list())
    for (size_t i = 0; i < list->items.size(); ++i) {
      const Value* type = list->items[i].is_map() ? list->items[i].find("type") : &list->items[i];
      if (type && type->scalar == "cfg") return apply_override(root, fmt::format("sample.guidance.{}.scale", i), scale, label);
    }
  Value rest = list && list->is_list() ? *list : Value::list();
  apply_override(root, "sample.guidance", fmt::format("[{{type: cfg, scale: {}}}]", scale), label);
  Value& fresh = *root.find("sample")->find("guidance");
  fresh.items.insert(fresh.items.end(), rest.items.begin(), rest.items.end());
}

}  // namespace

void SampleSettings::add_to(CLI::App& command) {
  command.add_option("--steps", steps, "sampling steps");
  command.add_option("--sampler", sampler, "a name, or {type: ddim, eta: 1}");
  command.add_option("--spacing", spacing, "a name, or {type: karras, rho: 5}");
  command.add_option("--noise-order", noise_order, "per_image, or batch as PyTorch users have it");
  overrides.add_to(command);
}

ModelSource::ModelSource(std::string path) : path_(std::move(path)), yaml_(path_.ends_with(".yaml") || path_.ends_with(".yml")) {
  if (yaml_) {
    root_ = load_yaml(path_);
    return;
  }
  const ModelCard card = read_card(path_);
  root_ = Value::map();
  root_.set("model", card.model);
  root_.set("sample", card.sample);
  plugins_ = card.plugins;
}

Config ModelSource::configuration(Program& program, const SampleSettings& s) const {
  Value root = root_;
  if (!yaml_) refuse_model_overrides(root, s.overrides.set, path_);
  const auto set = [&](const char* path, const char* option, const std::string& value) {
    if (!value.empty()) apply_override(root, path, value, fmt::format("{} {}", option, value));
  };
  set("sample.sampler", "--sampler", s.sampler);
  set("sample.spacing", "--spacing", s.spacing);
  set("sample.steps", "--steps", s.steps);
  set("sample.noise_order", "--noise-order", s.noise_order);
  if (!s.cfg.empty()) set_cfg(root, s.cfg);
  s.overrides.apply(root);
  Config config = read_stored_configuration(program.registry, root, path_, plugins_);
  if (config.classifier) throw ConfigError(fmt::format("{}: is the configuration of a classifier; nothing can be sampled from it", path_));
  return config;
}

std::unique_ptr<Pipeline> ModelSource::load(const Config& config) const {
  auto pipeline = std::make_unique<Pipeline>(config.model, resolve_compute(config.compute));
  if (!yaml_)
    load_weights(path_, pipeline->weights());
  else if (!pipeline->weightless())
    throw ConfigError(fmt::format("{}: its network has weights; train it, then sample the run's model.safetensors", path_));
  pipeline->freeze();
  return pipeline;
}

std::unique_ptr<ClassifierPipeline> open_classifier(Program& program, const std::string& path, const Overrides& overrides) {
  const ModelCard card = read_classifier_card(path);
  Value root = Value::map();
  root.set("classifier", card.classifier);
  Overrides where = overrides;
  where.set.clear();
  if (where.precision.empty()) where.precision = "fp32";  // a measure must not depend on the processor
  where.apply(root);
  const Config config = read_stored_configuration(program.registry, root, path, card.plugins);
  auto classifier = std::make_unique<ClassifierPipeline>(*config.classifier, resolve_compute(config.compute));
  load_weights(path, classifier->weights());
  classifier->freeze();
  return classifier;
}

}  // namespace brume::tools
