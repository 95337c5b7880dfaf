#include "brume/train/source.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

#include "brume/config/suggest.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/model_files.h"
#include "brume/train/differences.h"

namespace brume {
namespace {

constexpr const char* models[] = {"model", "classifier", "autoencoder"};

/// The name of the section that a configuration has of `models`, or null.
const char* section_of(const Value& root) {
  const auto found = std::find_if(std::begin(models), std::end(models), [&](const char* s) { return root.find(s) != nullptr; });
  return found == std::end(models) ? nullptr : *found;
}

/// Returns true if a checkpoint measures the value on its images and writes it instead of the configured one.
bool measured(const Difference& d) { return d.path == "autoencoder.network.scale" || d.path == "autoencoder.network.shift"; }

/// Throws ConfigError with every key in which the model to be trained differs from the source's.
void compare(const Value& source, const std::string& file, const Value& resolved, const Value& given) {
  const char *have = section_of(source), *wanted = section_of(resolved);
  if (std::string(have) != wanted)
    throw ConfigError({Problem{nearest(given, "train.from").place, "train.from",
                               fmt::format("{}: holds a '{}', and the configuration has a '{}'", file, have, wanted)}});
  std::vector<Problem> problems;
  for (const Difference& d : differences(source, resolved))
    if (d.of_model() && !d.left_to_data() && !measured(d))
      problems.push_back({nearest(given, d.path).place, d.path,
                          fmt::format("is {} here and {} in '{}', which train.from names; a configuration without '{}' takes its own",
                                      d.after, d.before, file, have)});
  if (!problems.empty()) throw ConfigError(std::move(problems));
}

std::vector<std::string> names_of(const NamedTensors& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& t : tensors)
    if (!t.name.starts_with(files_prefix)) names.push_back(t.name);
  return names;
}

/// "network.down.*" for every part of a name before a dot, and the name.
std::vector<std::string> patterns_of(const std::vector<std::string>& names) {
  std::set<std::string> all(names.begin(), names.end());
  for (const std::string& name : names)
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) all.insert(name.substr(0, dot) + ".*");
  return {all.begin(), all.end()};
}

std::string nearest_pattern(const std::string& pattern, const std::vector<std::string>& names) {
  const std::string near = closest(pattern, patterns_of(names));
  if (!near.empty()) return fmt::format("; did you mean '{}'?", near);
  std::set<std::string> first;
  for (const std::string& name : names) first.insert(name.substr(0, name.find('.')) + ".*");
  return hint(pattern, {first.begin(), first.end()});
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

std::set<std::string> matching(const std::vector<std::string>& patterns, const std::vector<std::string>& names) {
  std::set<std::string> matched;
  std::vector<Problem> problems;
  for (size_t i = 0; i < patterns.size(); ++i) {
    const bool except = patterns[i].starts_with("!");
    const std::string pattern = patterns[i].substr(except ? 1 : 0);
    size_t hits = 0;
    for (const std::string& name : names) {
      if (fnmatch(pattern.c_str(), name.c_str(), 0) != 0) continue;
      ++hits;
      if (except)
        matched.erase(name);
      else
        matched.insert(name);
    }
    if (hits == 0)
      problems.push_back(
          {{}, fmt::format("train.freeze.{}", i), fmt::format("'{}' matches no weight{}", pattern, nearest_pattern(pattern, names))});
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
  return matched;
}

void complete_model(Value& root, const Value& stored) {
  if (!nearest(root, "train.from").is_scalar() || section_of(root)) return;
  for (const char* section : models)
    if (const Value* own = stored.find(section)) root.set(section, *own);
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
  compare(own, file, full, root);
  try {
    matching(config.train->freeze, names_of(source.tensors));
  } catch (const ConfigError& e) {
    std::vector<Problem> problems = e.problems();
    for (Problem& p : problems) p.place = nearest(root, p.path).place;
    throw ConfigError(std::move(problems));
  }
  if (resolved) *resolved = std::move(full);
  return config;
}

}  // namespace brume
