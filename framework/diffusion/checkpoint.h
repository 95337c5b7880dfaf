#pragma once
// One file that explains itself: weights, and in its metadata the whole configuration they belong to.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/registry.h"
#include "diffusion/pipeline.h"

namespace brume {

/// What a model file says of itself.
struct ModelCard {
  Value model;                 ///< the resolved `model:` section
  Value sample;                ///< the `sample:` section it was configured with
  int64_t step = 0;            ///< updates it was trained for
  std::vector<std::string> plugins;  ///< out-of-tree libraries it uses; never loaded by themselves
};

/// Version of the file's layout; raised when older programs could not read it.
inline constexpr int model_format = 1;

/// Writes `weights` (float32, as they are) and the card, atomically.
void save_model(const std::string& path, const std::vector<Weight>& weights, const ModelCard& card);

/// Reads the card. Throws ConfigError where the file is no brume model, or one of a newer layout.
ModelCard read_card(const std::string& path);

/// Copies the file's tensors into `weights` by name. Throws ConfigError naming every tensor that is missing, unknown or of
/// another shape; then nothing is copied.
void load_weights(const std::string& path, const std::vector<Weight>& weights);

}  // namespace brume
