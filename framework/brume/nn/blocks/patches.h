#pragma once
// Images cut into patches, the tokens of a transformer, and patches joined to images. A signal is an image of one row. A volume is an
// image whose slices stand one below the other: its height is slices x rows.
#include "brume/nn/blocks/patch_positions.h"

namespace brume::nn {

struct PatchSize {
  int64_t height = 1, width = 1, slices = 1;
  int64_t count() const { return height * width * slices; }
};

/// Returns [B, N, C slices height width] of x: [B, C, H, W], in the order of grid: the values of a patch channel by channel, each slice by
/// slice and row by row, as the weights of a convolution are.
Tensor cut_patches(const Tensor& x, const PatchGrid& grid, const PatchSize& patch);

/// Returns [B, C, H, W] of tokens: [B, N, slices height width C], the values of a patch slice by slice and row by row, channels last.
Tensor join_patches(const Tensor& tokens, const PatchGrid& grid, const PatchSize& patch);

}  // namespace brume::nn
