#include "sampling/model_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "brume/config/yaml.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/interop/import/import.h"
#include "brume/interop/lora.h"

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

/// The list of guidances, made where there is none.
Value& guidances(Value& root) {
  if (!root.find("sample")) root.set("sample", Value::map());
  Value& sample = *root.find("sample");
  Value* list = sample.find("guidance");
  if (!list || list->is_null()) sample.set("guidance", Value::list());
  if (list && !list->is_null() && !list->is_list()) sample.set("guidance", Value::list({*list}));
  return *sample.find("guidance");
}

/// The guidance of a type as a map of its settings, or null.
Value* guidance(Value& root, const std::string& type) {
  for (Value& g : guidances(root).items) {
    const Value* named = g.is_map() ? g.find("type") : &g;
    if (!named || named->scalar != type) continue;
    if (!g.is_map()) {
      Value map = Value::map();
      map.set("type", Value::text(type));
      g = std::move(map);
    }
    return &g;
  }
  return nullptr;
}

/// Returns the place of a guidance; the innermost if the guidance cannot be made, which reading the configuration reports.
GuidancePlace place_of(const Registry& registry, const Value& guidance) {
  try {
    return create<Guidance>(registry, guidance)->traits().place;
  } catch (const ConfigError&) {
    return GuidancePlace::estimate;
  }
}

/// The same; if the list has none, a new one, before the first of its place or of one further out.
Value& guidance_or_new(const Registry& registry, Value& root, const std::string& type) {
  if (Value* have = guidance(root, type)) return *have;
  std::vector<Value>& items = guidances(root).items;
  Value fresh = Value::map();
  fresh.set("type", Value::text(type));
  const auto outside = [&, own = place_of(registry, fresh)](const Value& g) { return place_of(registry, g) >= own; };
  return *items.insert(std::find_if(items.begin(), items.end(), outside), std::move(fresh));
}

Value option_value(const std::string& text, const std::string& label, bool quoted = false) {
  Value value = Value::text(text, quoted);
  value.place.file = std::make_shared<const std::string>(label);
  return value;
}

/// A list of files, as options name them, in YAML.
std::string quoted_list(const std::vector<std::string>& files) {
  std::string list;
  for (const std::string& file : files) {
    list += list.empty() ? "'" : ", '";
    for (const char c : file) list += c == '\'' ? std::string("''") : std::string(1, c);
    list += "'";
  }
  return list.empty() ? "" : "[" + list + "]";
}

void set_guidances(const Registry& registry, Value& root, const SampleSettings& s) {
  if (!s.cfg.empty()) guidance_or_new(registry, root, "cfg").set("scale", option_value(s.cfg, "--cfg " + s.cfg));
  if (!s.classifier.empty()) {
    const std::string file = model_file(s.classifier);
    if (!std::filesystem::is_regular_file(file)) throw ConfigError(fmt::format("--classifier: there is no file '{}'", s.classifier));
    guidance_or_new(registry, root, "classifier")
        .set("model", option_value(std::filesystem::absolute(file).string(), "--classifier " + s.classifier, true));
  }
  if (!s.classifier_scale.empty()) {
    Value* have = guidance(root, "classifier");
    if (!have) throw ConfigError("--classifier-scale: there is no classifier to guide by; --classifier FILE names one");
    have->set("scale", option_value(s.classifier_scale, "--classifier-scale " + s.classifier_scale));
  }
}

}  // namespace

void SampleSettings::add_to(CLI::App& command) {
  command.add_option("--steps", steps, "sampling steps");
  command.add_option("--sampler", sampler, "a name, or {type: ddim, eta: 1}");
  command.add_option("--spacing", spacing, "a name, or {type: karras, rho: 5}");
  command.add_option("--noise-order", noise_order, "per_image; batch, as PyTorch users have it; or brownian");
  command.add_option("--tile", tile, "decode latents in pieces of so many pixels a side, blended where they overlap; 0 = whole images");
  command.add_option("--lora", lora, "adds a LoRA to the weights, at a strength (1 where not told); several add up")
      ->type_name("FILE[:STRENGTH]")
      ->allow_extra_args(false);
  command.add_option("--import", import, "what a model of another program does not say of itself, as `brume import --set` takes it")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command.add_option("--embedding", embeddings, "a textual inversion, and the word that stands for it in prompts where not the file's own")
      ->type_name("FILE[:WORD]")
      ->allow_extra_args(false);
  command.add_flag("--prompt-weights", prompt_weights, "(word:1.3), (word) and [word] in prompts count more or less");
  command.add_option("--long-prompts", long_prompts, "cut: what is longer than the context is left out; chunks: the context grows");
  command.add_option("--clip-skip", clip_skip, "last layers of CLIP's text encoder left out");
  overrides.add_to(command);
}

ImportOptions import_options(const std::string& option, const std::vector<std::string>& assignments) {
  ImportOptions options;
  for (const std::string& assignment : assignments) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) throw ConfigError(fmt::format("{} {}: key=value is expected", option, assignment));
    options.settings[assignment.substr(0, equals)] = assignment.substr(equals + 1);
  }
  return options;
}

std::string model_file(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path folder(path);
  if (!fs::is_directory(folder) || fs::exists(folder / "model_index.json") || fs::exists(folder / "config.json")) return path;
  if (fs::is_regular_file(folder / "model.safetensors")) return (folder / "model.safetensors").string();
  if (fs::is_regular_file(folder / "config.yaml"))
    throw ConfigError(fmt::format("{}: is the directory of a training that has written no model.safetensors yet", path));
  return path;
}

SampleSource::SampleSource(const std::string& path, const std::vector<std::string>& import)
    : path_(model_file(path)), yaml_(path_.ends_with(".yaml") || path_.ends_with(".yml")) {
  if (yaml_) {
    if (!import.empty())
      throw ConfigError(fmt::format("--import {}: {} is a configuration, no model of another program", import[0], path_));
    root_ = load_yaml(path_);
    return;
  }
  stored_ = open_stored(path_, import_options("--import", import));
  root_ = Value::map();
  root_.set("model", stored_.card.model);
  root_.set("sample", stored_.card.sample);
}

Config SampleSource::configuration(Program& program, const SampleSettings& s) const {
  Value root = root_;
  if (!yaml_) refuse_model_overrides(root, s.overrides.set, path_);
  const auto set = [&](const char* path, const char* option, const std::string& value) {
    if (!value.empty()) apply_override(root, path, value, fmt::format("{} {}", option, value));
  };
  set("sample.sampler", "--sampler", s.sampler);
  set("sample.spacing", "--spacing", s.spacing);
  set("sample.steps", "--steps", s.steps);
  set("sample.noise_order", "--noise-order", s.noise_order);
  set("sample.tile", "--tile", s.tile);
  set("sample.prompts.weights", "--prompt-weights", s.prompt_weights);
  set("sample.prompts.long", "--long-prompts", s.long_prompts);
  set("sample.prompts.clip_skip", "--clip-skip", s.clip_skip);
  set("sample.prompts.embeddings", "--embedding", quoted_list(s.embeddings));
  set("sample.lora", "--lora", quoted_list(s.lora));
  s.overrides.apply(root);
  set_guidances(program.registry, root, s);  // last: `--set sample.guidance=[]` says what the options are laid over
  Config config = read_stored_configuration(program.registry, root, path_, stored_.card.plugins);
  if (s.inpaint && config.model.conditioner && !config.model.conditioner->traits().masks) {  // else the network takes the mask itself
    guidance_or_new(program.registry, root, "inpaint");
    config = read_stored_configuration(program.registry, root, path_, stored_.card.plugins);
  }
  if (config.classifier) throw ConfigError(fmt::format("{}: is the configuration of a classifier; nothing can be sampled from it", path_));
  if (config.autoencoder)
    throw ConfigError(fmt::format("{}: is the configuration of an autoencoder; nothing can be sampled from it", path_));
  return config;
}

std::vector<std::pair<std::string, SampleOptions>> SampleSource::runs(Program& program, const SampleSettings& settings,
                                                                      const std::vector<std::string>& scales, Config& config) const {
  std::vector<std::pair<std::string, SampleOptions>> runs;
  for (const std::string& scale : scales.empty() ? std::vector<std::string>{""} : scales) {
    SampleSettings own = settings;
    own.cfg = scale;
    config = configuration(program, own);
    runs.emplace_back(scale.empty() ? "samples" : "cfg " + scale, config.sample);
  }
  return runs;
}

std::unique_ptr<Pipeline> SampleSource::load(const Program& program, const Config& config) const {
  const Compute compute = resolve_compute(config.compute);
  const ModelFiles models(program.registry, compute, std::filesystem::path(path_).parent_path());
  auto pipeline = std::make_unique<Pipeline>(config.model, compute, 0, yaml_ ? nullptr : &stored_.card.files, models);
  if (!yaml_)
    pipeline->take(path_, stored_.tensors);
  else if (!pipeline->weightless())
    throw ConfigError(fmt::format("{}: its network has weights; train it, then sample the run's model.safetensors", path_));
  for (const std::string& lora : config.sample.lora) merge_lora(lora, pipeline->weights());
  pipeline->freeze();
  return pipeline;
}

ModelFiles SampleSource::others(const Program& program, const Pipeline& model) const {
  return {program.registry, model.compute(), std::filesystem::path(path_).parent_path()};
}

bool steers_from_null(const Config& config) {
  const auto& all = config.sample.guidance;
  return std::any_of(all.begin(), all.end(), [](const auto& guidance) { return guidance->traits().uses_null; });
}

int64_t image_steps(int64_t first, int64_t batch, int64_t steps, const Step& step) {
  const int64_t done = step.count > 0 ? batch * steps * (step.index + 1) / step.count : 0;
  return first * steps + done;
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
  load_model(path, classifier->weights());
  classifier->freeze();
  return classifier;
}

}  // namespace brume::tools
