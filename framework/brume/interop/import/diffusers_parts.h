#pragma once
// The first stage of a diffusers directory.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/weights/tensors.h"

namespace brume {

/// AutoencoderKL, VQModel or AutoencoderTiny.
struct DiffusersStage {
  Value options;         ///< of brume's autoencoder
  NamedTensors tensors;  ///< under brume's names
  int64_t channels = 3;  ///< of images
  int64_t latent_channels = 4;
  int64_t ratio = 8;   ///< pixels to a latent, along a side
  int64_t size = 256;  ///< height and width it was trained for
};
/// Reads a first stage from its folder. `latent_height`: of the model's latents, which say at which heights there is attention; absent:
/// sample_size does. Throws ConfigError naming what of config.json cannot be had. `type`: the class, if config.json does not decide it.
DiffusersStage read_diffusers_stage(const std::filesystem::path& folder, const std::string& variant, std::optional<int64_t> latent_height,
                                    const std::string& type = "");

}  // namespace brume
