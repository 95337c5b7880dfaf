#pragma once
// The U-Nets of diffusers (UNet2DConditionModel, UNet2DModel) in brume's words: the options of `unet` that build the same network, and
// the tensors under CompVis' names. No code of diffusers is needed, only its config.json and weights.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/weights/tensors.h"

namespace brume {
class DiffusersConfig;

/// What a config.json says. The lists go from the image to the lowest resolution.
struct DiffusersUnet {
  std::vector<int64_t> channels;    ///< of each level
  std::vector<bool> attention;      ///< of each level
  std::vector<int64_t> depth;       ///< transformer blocks of each level
  std::vector<bool> only_cross;     ///< of each level, whether its blocks attend to the tokens alone
  std::vector<int64_t> heads;       ///< of each level
  int64_t blocks = 2;               ///< residual blocks per level of the encoder
  int64_t height = 64, width = 64;  ///< of the images (or latents) it was trained for
  bool before_0_9 = false;          ///< written by diffusers before 0.9
  int64_t in_channels = 4, out_channels = 4;
  int64_t context_width = 0;      ///< of the tokens; 0 = plain attention without tokens
  int64_t added_width = 0;        ///< of the pooled vector and the embedded sizes (SDXL); 0 = none
  int64_t size_channels = 0;      ///< of each embedded size
  int64_t guidance_channels = 0;  ///< of the embedded guidance scale (LCM); 0 = none
  int64_t classes = 0;            ///< rows of the class embedding; 0 = none
  bool number = false;            ///< the class enters as a number; the number of classes is not in the file
  int64_t groups = 32;
  bool middle_attention = true, scale_shift = false, linear_projection = false, residual_resampling = false;
  double dropout = 0, norm_eps = 1e-5;
  bool pad_below = false, sin_first = false;
  int64_t frequency_shift = 0;
  Value noise_embedding = Value::map();  ///< options of the noise embedding that the scheduler decides; empty: the timestep

  /// Returns the levels whose blocks attend to the tokens alone, 0 the image's.
  std::vector<int64_t> only_cross_levels() const;
  bool transformer() const { return context_width > 0; }
  /// Returns the network's options: {type: unet, channels: 320, …}.
  Value options() const;
  /// Returns the network's tensors, from those of the weights file. Throws ConfigError naming those that it knows no place for.
  NamedTensors tensors(const NamedTensors& diffusers) const;
};

/// Reads a config.json; throws ConfigError naming what it holds that `unet` cannot be. `size`: says what sample_size is to be. `type`: the
/// class, if config.json does not decide it.
DiffusersUnet read_diffusers_unet(const std::filesystem::path& config, std::optional<int64_t> size = {}, const std::string& type = "");
/// Reads the same of what was read already.
DiffusersUnet read_diffusers_unet(const DiffusersConfig& config, std::optional<int64_t> size = {});

}  // namespace brume
