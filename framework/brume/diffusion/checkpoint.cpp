#include "brume/diffusion/checkpoint.h"

#include <fmt/format.h>

#include <filesystem>

#include "brume/files/hub_cache.h"
#include "brume/interop/import/import.h"
#include "brume/weights/int8_tensors.h"
#include "brume/weights/safetensors.h"

namespace brume {
namespace {

/// Reads what every model file has.
ModelCard& read_common(ModelCard& card, const ModelMetadata& metadata, const std::string& path) {
  card.step = metadata.step(path);
  card.plugins = metadata.plugins();
  return card;
}

ModelCard card_of(const ModelMetadata& metadata, const std::string& path) {
  if (metadata.has("classifier"))
    throw ConfigError(fmt::format("{}: is a classifier, not a diffusion model; `brume evaluate` is for it", path));
  if (metadata.has("autoencoder"))
    throw ConfigError(
        fmt::format("{0}: is an autoencoder, not a diffusion model; a model is trained on top of it with "
                    "model.autoencoder: {{type: checkpoint, path: {0}}}",
                    path));
  ModelCard card;
  card.model = metadata.required("model", path);
  card.sample = metadata.section("sample", path);
  return read_common(card, metadata, path);
}

ModelCard classifier_card(const ModelMetadata& metadata, const std::string& path) {
  for (const auto& [section, what] : {std::pair("model", "a diffusion model"), std::pair("autoencoder", "an autoencoder")})
    if (metadata.has(section)) throw ConfigError(fmt::format("{}: is {}, not a classifier", path, what));
  ModelCard card;
  card.classifier = metadata.required("classifier", path);
  return read_common(card, metadata, path);
}

ModelCard autoencoder_card(const ModelMetadata& metadata, const std::string& path) {
  for (const auto& [section, what] : {std::pair("model", "a diffusion model"), std::pair("classifier", "a classifier")})
    if (metadata.has(section)) throw ConfigError(fmt::format("{}: is {}, not an autoencoder alone", path, what));
  ModelCard card;
  card.autoencoder = metadata.required("autoencoder", path);
  return read_common(card, metadata, path);
}

/// Opens a model file, or a foreign model. Throws ConfigError if a newer brume wrote it.
Contents checked_contents(const std::string& path, const ImportOptions& options = {}) {
  Contents contents = open_model(path, options);
  contents.metadata.check_format(path);
  return contents;
}

ModelMetadata read_metadata(const std::string& path) { return checked_contents(path).metadata; }

}  // namespace

void save_model(const std::string& path, const std::vector<Weight>& weights, const ModelCard& card) {
  NamedTensors tensors;
  for (const Weight& w : weights) tensors.push_back({w.name, w.tensor});
  for (NamedTensor& t : file_tensors(card.files)) tensors.push_back(std::move(t));
  ModelMetadata metadata = ModelMetadata::of_model(card.step);
  metadata.set_plugins(card.plugins);
  metadata.set("model", card.model);
  metadata.set("sample", card.sample);
  metadata.set("classifier", card.classifier);
  metadata.set("autoencoder", card.autoencoder);
  metadata.set("int8", card.int8);
  write_safetensors(path, tensors, metadata.entries());
}

ModelCard read_card(const std::string& path) { return card_of(read_metadata(path), path); }
ModelCard read_classifier_card(const std::string& path) { return classifier_card(read_metadata(path), path); }
ModelCard read_autoencoder_card(const std::string& path) { return autoencoder_card(read_metadata(path), path); }

StoredModel open_stored(const std::string& path) { return open_stored(path, ImportOptions{}); }

StoredModel open_stored(const std::string& path, const ImportOptions& options) {
  Contents contents = checked_contents(path, options);
  StoredModel model{card_of(contents.metadata, path), std::move(contents.tensors)};
  model.card.files = files_in(model.tensors);
  return model;
}

StoredModel open_any(const std::string& path) {
  Contents contents = checked_contents(path);
  const std::string kind = contents.metadata.kind();
  const auto card = kind == "classifier" ? classifier_card : kind == "autoencoder" ? autoencoder_card : card_of;
  StoredModel model{card(contents.metadata, path), without_int8(path, std::move(contents.tensors))};
  model.card.files = files_in(model.tensors);
  return model;
}

std::string model_file(const std::string& named) {
  namespace fs = std::filesystem;
  const std::string path = from_hub(named);
  const fs::path folder(path);
  if (!fs::is_directory(folder) || fs::exists(folder / "model_index.json") || fs::exists(folder / "config.json")) return path;
  if (fs::is_regular_file(folder / "model.safetensors")) return (folder / "model.safetensors").string();
  if (fs::is_regular_file(folder / "config.yaml"))
    throw ConfigError(fmt::format("{}: is the directory of a training that has written no model.safetensors yet", path));
  return path;
}

std::string kind_of(const std::string& path) { return read_metadata(path).kind(); }

}  // namespace brume
