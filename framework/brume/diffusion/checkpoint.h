#pragma once
// One file that explains itself: weights, and in its metadata the whole configuration they belong to.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "brume/config/registry.h"
#include "brume/core/files.h"
#include "brume/core/network.h"
#include "brume/weights/model_weights.h"

namespace brume {

struct ImportOptions;

/// What a model file says of itself: it holds a diffusion model, a classifier or a first stage alone.
struct ModelCard {
  Value model;                       ///< the resolved `model:` section; null in other files
  Value sample;                      ///< the `sample:` section it was configured with; null in other files
  int64_t step = 0;                  ///< updates it was trained for
  std::vector<std::string> plugins;  ///< out-of-tree libraries it uses; loaded only if the user names them
  Value classifier{};                ///< the resolved `classifier:` section, in the file of a classifier
  Value autoencoder{};               ///< the resolved `autoencoder:` section, in the file of a first stage alone
  Value int8{};                      ///< what `brume quantize` measured; written only
  Files files{};                     ///< that the model was made from; written, and read by load_files
};

/// Writes `weights` (float32, as they are) and the card, atomically.
void save_model(const std::string& path, const std::vector<Weight>& weights, const ModelCard& card);

/// A diffusion model as it is stored, opened once: a foreign one is imported by that. Weights of int8 stay so (weights/int8_tensors.h).
struct StoredModel {
  ModelCard card;        ///< with its files
  NamedTensors tensors;  ///< views of the file
};
/// Throws ConfigError as read_card does.
StoredModel open_stored(const std::string& path);
/// Returns the same of a foreign one with what it does not say of itself.
StoredModel open_stored(const std::string& path, const ImportOptions& options);

/// Opens a model of any kind, with weights of int8 as float32: the card has the section of its kind. Throws ConfigError if it is no model.
StoredModel open_any(const std::string& path);

/// Returns the model.safetensors of a training if `path` is its directory, what from_hub() finds if it is a name on Hugging Face's hub,
/// else `path`. Throws ConfigError if a training has written none, or if such a model was not fetched.
std::string model_file(const std::string& path);

/// Reads the card of a diffusion model. Throws ConfigError if the file is no brume model, one of a newer layout, or holds
/// another kind.
ModelCard read_card(const std::string& path);
/// Returns the same for a classifier.
ModelCard read_classifier_card(const std::string& path);
/// Returns the same for a first stage alone.
ModelCard read_autoencoder_card(const std::string& path);
/// Returns the section that the file's card has: "model", "classifier" or "autoencoder". Throws ConfigError if the file is no model.
std::string kind_of(const std::string& path);

}  // namespace brume
