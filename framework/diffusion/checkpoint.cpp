#include "diffusion/checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <unordered_set>

#include "config/yaml.h"
#include "io/model_file.h"
#include "io/safetensors.h"

namespace brume {
namespace {

using Metadata = std::map<std::string, std::string>;

std::string required(const Metadata& metadata, const std::string& key, const std::string& path) {
  const auto it = metadata.find(key);
  if (it == metadata.end())
    throw ConfigError(fmt::format("{}: not a brume model (its metadata has no '{}'); `brume inspect` lists what is in it", path, key));
  return it->second;
}

int64_t number(const std::string& text, const std::string& key, const std::string& path) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw ConfigError(fmt::format("{}: metadata '{}' is '{}', expected a number", path, key, text));
  return value;
}

/// The metadata of a file that some brume wrote, of a layout that this one reads.
Metadata read_metadata(const std::string& path) {
  Metadata metadata;
  io::load_tensors(path, &metadata);
  const int64_t format = number(required(metadata, "brume.format", path), "brume.format", path);
  if (format > model_format)
    throw ConfigError(fmt::format("{}: written by brume {} in model format {}; this is brume {}, which reads up to format {}", path,
                                  metadata["brume.version"], format, BRUME_VERSION, model_format));
  return metadata;
}

/// What every model file has.
ModelCard& read_common(ModelCard& card, const Metadata& metadata, const std::string& path) {
  card.step = number(required(metadata, "brume.step", path), "brume.step", path);
  const auto it = metadata.find("brume.plugins");
  const std::string plugins = it == metadata.end() ? "" : it->second;
  for (size_t start = 0; start < plugins.size();) {
    const size_t end = std::min(plugins.find('\n', start), plugins.size());
    card.plugins.push_back(plugins.substr(start, end - start));
    start = end + 1;
  }
  return card;
}

}  // namespace

void save_model(const std::string& path, const std::vector<Weight>& weights, const ModelCard& card) {
  io::NamedTensors tensors;
  for (const Weight& w : weights) tensors.push_back({w.name, w.tensor.detach()});
  Metadata metadata{{"format", "brume"},
                    {"brume.format", std::to_string(model_format)},
                    {"brume.version", BRUME_VERSION},
                    {"brume.step", std::to_string(card.step)},
                    {"brume.plugins", fmt::format("{}", fmt::join(card.plugins, "\n"))}};
  if (card.classifier.is_null()) {
    metadata["brume.model"] = dump_yaml(card.model);
    metadata["brume.sample"] = dump_yaml(card.sample);
  } else {
    metadata["brume.classifier"] = dump_yaml(card.classifier);
  }
  io::write_safetensors(path, tensors, metadata);
}

ModelCard read_card(const std::string& path) {
  Metadata metadata = read_metadata(path);
  if (metadata.contains("brume.classifier"))
    throw ConfigError(fmt::format("{}: is a classifier, not a diffusion model; `brume evaluate` is for it", path));
  ModelCard card;
  card.model = parse_yaml(required(metadata, "brume.model", path), path + " (model)");
  card.sample = parse_yaml(metadata["brume.sample"], path + " (sample)");
  return read_common(card, metadata, path);
}

ModelCard read_classifier_card(const std::string& path) {
  const Metadata metadata = read_metadata(path);
  if (metadata.contains("brume.model")) throw ConfigError(fmt::format("{}: is a diffusion model, not a classifier", path));
  ModelCard card;
  card.classifier = parse_yaml(required(metadata, "brume.classifier", path), path + " (classifier)");
  return read_common(card, metadata, path);
}

bool holds_classifier(const std::string& path) { return read_metadata(path).contains("brume.classifier"); }

void load_weights(const std::string& path, const std::vector<Weight>& weights) {
  const at::NoGradGuard no_grad;
  const io::NamedTensors file = io::load_tensors(path);
  std::unordered_map<std::string, const Tensor*> by_name;
  for (const io::NamedTensor& t : file) by_name.emplace(t.name, &t.tensor);
  std::vector<Problem> problems;
  std::unordered_set<std::string> wanted;
  const auto problem = [&](std::string text) { problems.push_back({{}, "", fmt::format("{}: {}", path, text)}); };
  for (const Weight& w : weights) {
    wanted.insert(w.name);
    const auto it = by_name.find(w.name);
    if (it == by_name.end())
      problem(fmt::format("lacks the tensor '{}' [{}]", w.name, fmt::join(w.tensor.sizes(), ", ")));
    else if (it->second->sizes() != w.tensor.sizes())
      problem(fmt::format("tensor '{}' has shape [{}], the model's has [{}]", w.name, fmt::join(it->second->sizes(), ", "),
                          fmt::join(w.tensor.sizes(), ", ")));
  }
  for (const io::NamedTensor& t : file)
    if (!wanted.contains(t.name)) problem(fmt::format("has a tensor '{}' that the model does not", t.name));
  if (problems.size() > 10) {
    const size_t more = problems.size() - 10;
    problems.resize(10);
    problem(fmt::format("and {} more tensors do not fit", more));
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
  for (const Weight& w : weights) {
    Tensor target = w.tensor;
    target.copy_(*by_name[w.name]);
  }
}

}  // namespace brume
