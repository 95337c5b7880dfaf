#pragma once
// The names that diffusers has for the tensors of transformers, and the layers that are one in brume and several there. Read and written.
#include <cstdint>
#include <string>
#include <vector>

#include "brume/interop/layouts/name_table.h"
#include "brume/weights/tensors.h"

namespace brume {

/// Layers of theirs whose rows are one layer of ours, in this order: names up to the last dot.
struct JoinedLayer {
  std::string ours;
  std::vector<std::string> theirs;
};

struct LayerNames {
  NameTable names;
  std::vector<JoinedLayer> joined{};
};

/// Returns the names of DiTTransformer2DModel. Each block repeats the embedders of noise level and class below dit_embedders; the table has
/// them without the block's prefix.
LayerNames dit_names(int64_t depth);
inline constexpr const char* dit_embedders = "norm1.emb.";

/// Returns the names of PixArtTransformer2DModel.
LayerNames pixart_names(int64_t depth);

/// Returns the names of SD3Transformer2DModel, or FluxTransformer2DModel.
LayerNames mmdit_names(bool flux, int64_t depth, int64_t single_depth, const std::vector<int64_t>& dual_blocks);
/// Returns the names of FLUX's own files.
NameTable flux_names(int64_t depth, int64_t single_depth);
/// Returns true if diffusers has (scale, shift) where the layer has (shift, scale): in the last layer, and in the words' last block of
/// SD 3.
bool mmdit_swaps(const std::string& ours, int64_t depth, int64_t single_depth);
/// Returns a layer's weight or bias with its two halves of rows swapped; its own inverse.
at::Tensor swapped_halves(const at::Tensor& rows);

/// Patches of FLUX, whose program packs them itself.
struct FluxPatches {
  int64_t in = 16, out = 16, patch = 2;
};
/// Returns a tensor of FLUX's first or last layer in brume's layout, others as they are: the first is a convolution, and rows of the last
/// are ordered by row, column and channel within a patch instead of channel, row and column. `name`: brume's.
at::Tensor from_flux_layout(const std::string& name, const at::Tensor& tensor, const FluxPatches& patches);
/// Returns the inverse.
at::Tensor to_flux_layout(const std::string& name, const at::Tensor& tensor, const FluxPatches& patches);

/// Returns the tensors under diffusers' names: the inverse of renamed_layers. `width`: rows of each part of a joined layer but the last,
/// which has the rest. Throws ConfigError naming a tensor that the layout has no place for. `source`: for messages.
NamedTensors split_layers(const NamedTensors& tensors, const LayerNames& layout, int64_t width, const std::string& source);

}  // namespace brume
