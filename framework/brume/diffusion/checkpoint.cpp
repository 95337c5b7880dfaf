#include "brume/diffusion/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "brume/config/version.h"
#include "brume/config/yaml.h"
#include "brume/interop/import/import.h"
#include "brume/weights/safetensors.h"

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
Metadata checked(Metadata metadata, const std::string& path) {
  const int64_t format = number(required(metadata, "brume.format", path), "brume.format", path);
  if (format > model_format)
    throw ConfigError(fmt::format("{}: written by brume {} in model format {}; this is brume {}, which reads up to format {}", path,
                                  metadata["brume.version"], format, version(), model_format));
  return metadata;
}

Metadata read_metadata(const std::string& path) { return checked(open_model(path).metadata, path); }

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

ModelCard card_of(const Metadata& metadata, const std::string& path) {
  if (metadata.contains("brume.classifier"))
    throw ConfigError(fmt::format("{}: is a classifier, not a diffusion model; `brume evaluate` is for it", path));
  if (metadata.contains("brume.autoencoder"))
    throw ConfigError(
        fmt::format("{0}: is an autoencoder, not a diffusion model; a model is trained on top of it with "
                    "model.autoencoder: {{type: checkpoint, path: {0}}}",
                    path));
  ModelCard card;
  card.model = parse_stored_yaml(required(metadata, "brume.model", path), path + " (model)");
  if (const auto it = metadata.find("brume.sample"); it != metadata.end()) card.sample = parse_stored_yaml(it->second, path + " (sample)");
  return read_common(card, metadata, path);
}

ModelCard classifier_card(const Metadata& metadata, const std::string& path) {
  for (const auto& [key, what] : {std::pair("brume.model", "a diffusion model"), std::pair("brume.autoencoder", "an autoencoder")})
    if (metadata.contains(key)) throw ConfigError(fmt::format("{}: is {}, not a classifier", path, what));
  ModelCard card;
  card.classifier = parse_stored_yaml(required(metadata, "brume.classifier", path), path + " (classifier)");
  return read_common(card, metadata, path);
}

ModelCard autoencoder_card(const Metadata& metadata, const std::string& path) {
  for (const auto& [key, what] : {std::pair("brume.model", "a diffusion model"), std::pair("brume.classifier", "a classifier")})
    if (metadata.contains(key)) throw ConfigError(fmt::format("{}: is {}, not an autoencoder by itself", path, what));
  ModelCard card;
  card.autoencoder = parse_stored_yaml(required(metadata, "brume.autoencoder", path), path + " (autoencoder)");
  return read_common(card, metadata, path);
}

}  // namespace

void save_model(const std::string& path, const std::vector<Weight>& weights, const ModelCard& card) {
  NamedTensors tensors;
  for (const Weight& w : weights) tensors.push_back({w.name, w.tensor.detach()});
  for (NamedTensor& t : file_tensors(card.files)) tensors.push_back(std::move(t));
  Metadata metadata{{"format", "brume"},
                    {"brume.format", std::to_string(model_format)},
                    {"brume.version", version()},
                    {"brume.step", std::to_string(card.step)},
                    {"brume.plugins", fmt::format("{}", fmt::join(card.plugins, "\n"))}};
  const std::pair<const char*, const Value&> sections[] = {{"brume.model", card.model},
                                                           {"brume.sample", card.sample},
                                                           {"brume.classifier", card.classifier},
                                                           {"brume.autoencoder", card.autoencoder}};
  for (const auto& [key, section] : sections)
    if (!section.is_null()) metadata[key] = dump_yaml(section);
  write_safetensors(path, tensors, metadata);
}

ModelCard read_card(const std::string& path) { return card_of(read_metadata(path), path); }
ModelCard read_classifier_card(const std::string& path) { return classifier_card(read_metadata(path), path); }
ModelCard read_autoencoder_card(const std::string& path) { return autoencoder_card(read_metadata(path), path); }

StoredModel open_stored(const std::string& path) { return open_stored(path, ImportOptions{}); }

StoredModel open_stored(const std::string& path, const ImportOptions& options) {
  Contents contents = open_model(path, options);
  StoredModel model{card_of(checked(std::move(contents.metadata), path), path), std::move(contents.tensors)};
  model.card.files = files_in(model.tensors);
  return model;
}

StoredModel open_any(const std::string& path) {
  Contents contents = open_model(path);
  const Metadata metadata = checked(std::move(contents.metadata), path);
  const auto card = metadata.contains("brume.classifier")    ? classifier_card
                    : metadata.contains("brume.autoencoder") ? autoencoder_card
                                                             : card_of;
  StoredModel model{card(metadata, path), std::move(contents.tensors)};
  model.card.files = files_in(model.tensors);
  return model;
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

bool holds_classifier(const std::string& path) { return read_metadata(path).contains("brume.classifier"); }
bool holds_autoencoder(const std::string& path) { return read_metadata(path).contains("brume.autoencoder"); }

}  // namespace brume
