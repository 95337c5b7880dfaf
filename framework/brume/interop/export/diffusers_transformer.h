#pragma once
// A transformer of brume as diffusers has it: DiT, PixArt, Stable Diffusion 3 and FLUX, with their text encoders.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "brume/interop/export/partial.h"
#include "brume/interop/import/import.h"

namespace brume {

/// What of a transformer a diffusers directory has.
struct TransformerDirectory {
  bool pipeline = false;                            ///< text encoders are there; else the transformer alone can be written
  std::string pipeline_name{};                      ///< "DiTPipeline"
  nlohmann::json index = nlohmann::json::object();  ///< of model_index.json: its components
  brume::Value files = brume::Value::map();         ///< places of the model's files, by the path that its configuration names
  std::vector<std::string> notes{};                 ///< what other programs will not find
};

/// Returns true if diffusers is given the network as a transformer.
bool is_transformer(const brume::Value& network);

/// Writes the transformer into `transformer/`, or into the folder itself if the model has no first stage or no weights of its text
/// encoders; and the text encoders. `size`: of the latents. Throws ConfigError naming `source` if diffusers has no class for the network.
TransformerDirectory write_diffusers_transformer(const Partial& out, const Contents& model, const brume::Value& options, int64_t size,
                                                 bool stage, const std::string& source);

}  // namespace brume
