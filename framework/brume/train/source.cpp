#include "brume/train/source.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "brume/config/name_patterns.h"
#include "brume/config/number.h"
#include "brume/config/out_of_memory.h"
#include "brume/config/tree.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/model_files.h"
#include "brume/diffusion/pipeline.h"
#include "brume/nn/blocks/layers.h"
#include "brume/train/adapter_targets.h"
#include "brume/train/adoption.h"
#include "brume/train/differences.h"
#include "brume/train/new_word.h"
#include "brume/train/optimization.h"

namespace brume {
namespace {

constexpr const char* models[] = {"model", "classifier", "autoencoder"};

/// Returns the name of the section that a configuration has of `models`, or null.
const char* section_of(const Value& root) {
  const auto found = std::find_if(std::begin(models), std::end(models), [&](const char* s) { return root.find(s) != nullptr; });
  return found == std::end(models) ? nullptr : *found;
}

/// Returns true if a checkpoint measures the value on its images and writes it instead of the configured one.
bool measured(const Difference& d) { return d.path == "autoencoder.network.scale" || d.path == "autoencoder.network.shift"; }

/// Returns true if the value says what is trained, not what it is.
bool trained(const Difference& d) { return d.path.ends_with(".trainable"); }

/// Lets a network attend at the levels it has, if its images are given another height: the option names their heights.
void keep_attention(Value& model, const Value& own, const Value& given) {
  constexpr const char *height = "image.height", *attention = "network.attention_resolutions";
  const Value& levels = nearest(own, attention);
  if (!levels.is_list() || nearest(given, attention).is_list()) return;
  if (!nearest(model, attention).is_list()) return;  // a network of another kind
  const auto from = parse_number<int64_t>(nearest(own, height).scalar), to = parse_number<int64_t>(nearest(given, height).scalar);
  if (!from || !to || *from <= 0) return;
  std::vector<int64_t> scaled;
  for (const Value& level : levels.items) scaled.push_back(parse_number<int64_t>(level.scalar).value_or(0) * *to / *from);
  model.find("network")->set("attention_resolutions", value_of(scaled));
}

/// Returns what a user can do about a key that differs. `section`: of the model.
std::string way_out(const Difference& d, const char* section) {
  const std::string rule = rule_for(d.path);
  if (rule.empty()) return fmt::format("a configuration without '{}' takes its own", section);
  return fmt::format("train.adopt: {} lets it differ", rule == "{}" ? rule : "{" + rule + "}");
}

/// A training, and what it starts from.
struct Start {
  const Config& config;
  const StoredModel& source;
  const std::string& file;
  const Value &before, &after;  ///< the configurations of both, with all keys
};

/// Returns what `adopt` says of every tensor of the source that the diffusion model has no place for, or has in another shape. The model is
/// made without values. Nothing if the class names are left to the data.
std::vector<Problem> misfits(const Start& start, const ModelSource& models) {
  const Config& config = start.config;
  if (!config.model.network || config.model.control) return {};
  const AdoptionOptions adoption = config.train->adopt.value_or(AdoptionOptions());
  const ClassRows before = class_rows(start.before), after = class_rows(start.after);
  if (!adoption.classes.empty() && after.names.empty()) return {};
  const nn::SkipInit without_values;
  std::optional<Pipeline> model;
  try {
    model.emplace(config.model, Compute(), 0, &start.source.card.files, models);
  } catch (const std::exception& e) {
    if (dynamic_cast<const ConfigError*>(&e) || out_of_memory(e)) return {};  // which is said when the model is made to be trained
    throw;
  }
  try {
    adopt(start.file, start.source.tensors, model->weights(), adoption, before, after, &model->network());
  } catch (const ConfigError& e) {
    return e.problems();
  }
  return {};
}

/// Throws ConfigError with every key in which the model to be trained differs from the source's without a rule of `train.adopt`, and every
/// tensor that does not fit.
void compare(const Start& start, const Value& given, const ModelSource& models) {
  const Value &source = start.before, &resolved = start.after;
  const std::string& file = start.file;
  const std::optional<AdoptionOptions>& adopt = start.config.train->adopt;
  const char *have = section_of(source), *wanted = section_of(resolved);
  if (std::string(have) != wanted)
    throw ConfigError({Problem{nearest(given, "train.from").place, "train.from",
                               fmt::format("{}: holds a '{}', and the configuration has a '{}'", file, have, wanted)}});
  std::vector<Problem> problems;
  for (const Difference& d : differences(source, resolved))
    if (d.of_model() && !d.path.starts_with("model.control") && !d.left_to_data() && !measured(d) && !trained(d) &&
        !(adopt && allows(*adopt, d.path)))
      problems.push_back({nearest(given, d.path).place, d.path,
                          fmt::format("is {} here and {} in '{}', which train.from names; {}", d.after, d.before, file, way_out(d, have))});
  constexpr size_t most = 20;  // tensors that are named next to keys
  std::vector<Problem> tensors = problems.empty() && !adopt ? std::vector<Problem>() : misfits(start, models);
  if (const size_t count = tensors.size(); !adopt && count > most) {
    tensors.resize(most);
    tensors.push_back({{}, "", fmt::format("{}: {} more tensors do not fit; train.adopt: {{}} names all of them", file, count - most)});
  }
  for (Problem& p : tensors) {
    if (!p.path.empty()) p.place = nearest(given, p.path).place;
    problems.push_back(std::move(p));
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
}

/// Throws ConfigError with every pattern that matches no weight of the source, every target of adapters that is not there, and every new
/// word that the model does not take.
void check_patterns(const Config& config, const StoredModel& source, const Value& root) {
  const TrainOptions& train = *config.train;
  std::vector<Weight> weights;
  for (const NamedTensor& t : source.tensors)
    if (!t.name.starts_with(files_prefix)) weights.push_back({t.name, t.tensor});
  const std::vector<std::string> names = names_of(weights);
  std::vector<Problem> problems;
  const auto collect = [&](const auto& check) {
    try {
      check();
    } catch (const ConfigError& e) {
      for (Problem p : e.problems()) {
        p.place = nearest(root, p.path).place;
        problems.push_back(std::move(p));
      }
    }
  };
  const auto check = [&](const auto& patterns, const std::string& path) { collect([&] { matching(patterns, names, path); }); };
  check(train.freeze, "train.freeze");
  check(train.train_only, "train.train_only");
  for (size_t i = 0; train.adapters.empty() && !config.model.control && i < train.groups.size(); ++i)
    check(train.groups[i].match, fmt::format("train.groups.{}.match", i));
  const WarningScope silent([](const std::string&) {});  // they are said when the training begins
  for (size_t i = 0; i < train.adapters.size(); ++i)
    collect([&, path = fmt::format("train.adapters.{}", i)] {
      if (const auto word = train.adapters[i]->word())
        new_word(*word, weights, source.card.files, path);
      else
        adapter_targets(*train.adapters[i], weights, path);
    });
  if (!problems.empty()) throw ConfigError(std::move(problems));
}

}  // namespace

Value sections(const ModelCard& card) {
  Value root = Value::map();
  for (const auto& [name, section] : {std::pair<const char*, const Value&>("model", card.model),
                                      {"classifier", card.classifier},
                                      {"autoencoder", card.autoencoder},
                                      {"sample", card.sample}})
    if (!section.is_null()) root.set(name, section);
  return root;
}

void complete_model(Value& root, const Value& stored) {
  if (!nearest(root, "train.from").is_scalar()) return;
  const char* given = section_of(root);
  for (const char* section : models) {
    const Value* own = stored.find(section);
    if (!own || (given && std::string(given) != section)) continue;
    Value completed = *own;
    if (given) completed.erase("class_names");  // left to the data
    if (given) {
      const Value asked = *root.find(section);
      completed = merge(std::move(completed), asked);
      keep_attention(completed, *own, asked);
    }
    root.set(section, std::move(completed));
  }
  if (const Value* sample = stored.find("sample"); sample && !root.find("sample")) root.set("sample", *sample);
}

Config read_training(Registry& registry, Value root, const std::filesystem::path& folder, Value* resolved) {
  const Value from = nearest(root, "train.from");
  if (!from.is_scalar() || from.scalar.empty()) return read_configuration(registry, root, resolved);
  StoredModel source;
  std::string file;
  try {
    file = model_file(find_model(folder, from.scalar));
    source = open_any(file);
  } catch (const ConfigError& e) {
    throw e.located(from.place, "train.from");
  }
  root.find("train")->find("from")->scalar = file;
  Value own = sections(source.card), full;
  complete_model(root, own);
  Config config = read_stored_configuration(registry, root, file, source.card.plugins, &full);
  read_stored_configuration(registry, Value(own), file, source.card.plugins, &own);
  compare({config, source, file, own, full}, root, ModelFiles(registry, Compute(), folder));
  if (!config.train->adopt || config.train->adopt->added.empty()) check_patterns(config, source, root);
  if (resolved) *resolved = std::move(full);
  return config;
}

}  // namespace brume
