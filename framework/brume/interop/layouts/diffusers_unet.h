#pragma once
// The tensors of the U-Nets of diffusers (UNet2DConditionModel, UNet2DModel) and of brume's `unet`, which has CompVis' names
// (input_blocks, middle_block, output_blocks): one table of names for the import, the export and LoRA files.
#include <cstdint>
#include <string>
#include <vector>

#include "brume/interop/layouts/name_table.h"
#include "brume/interop/layouts/unet_layout.h"
#include "brume/weights/tensors.h"

namespace brume {

/// What decides the names of a U-Net's modules. CompVis numbers the modules of an encoder or decoder in one row, diffusers per level.
struct UnetModules {
  enum class Resampling { conv, pool, residual };

  int64_t blocks = 2;           ///< residual blocks per level of the encoder; the decoder has one more
  std::vector<bool> attention;  ///< per level, from the image to the lowest resolution
  bool middle_attention = true;
  bool transformer = false;  ///< attention is a spatial transformer
  Resampling resampling = Resampling::conv;

  bool operator==(const UnetModules&) const = default;
};

/// Reads the modules from the names of a `unet`'s tensors.
UnetModules unet_modules(const std::vector<std::string>& names);

/// Returns the names of `unet` (ours) and diffusers (theirs). The q, k and v of plain attention are "….q.", "….k." and "….v." in ours,
/// though a `unet` holds them in one tensor, "….qkv.".
NameTable unet_names(const UnetModules& modules);

/// Returns the part that a tensor of ours is of "….qkv.": 0 to 2 for q, k and v; -1 if it is none of them.
int qkv_part(const std::string& name);

/// Returns a `unet`'s tensors, with q, k and v of plain attention joined, all q first, to a 1x1 convolution [3C, C, 1]. Throws ConfigError
/// naming the tensors that the table has no name for.
NamedTensors from_diffusers_unet(const NamedTensors& tensors, const UnetModules& modules);
/// Returns the tensors of diffusers' U-Net, with q, k and v of plain attention as linear layers [C, C].
NamedTensors to_diffusers_unet(const NamedTensors& tensors, const UnetLayout& layout);

}  // namespace brume
