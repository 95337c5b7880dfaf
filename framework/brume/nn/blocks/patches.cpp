#include "brume/nn/blocks/patches.h"

#include <ATen/TensorOperators.h>

namespace brume::nn {

Tensor cut_patches(const Tensor& x, const PatchGrid& g, const PatchSize& p) {
  const int64_t batch = x.size(0), channels = x.size(1);
  return x.reshape({batch, channels, g.slices, p.slices, g.rows, p.height, g.columns, p.width})
      .permute({0, 2, 4, 6, 1, 3, 5, 7})
      .reshape({batch, g.count(), channels * p.count()});
}

Tensor join_patches(const Tensor& tokens, const PatchGrid& g, const PatchSize& p) {
  const int64_t batch = tokens.size(0), channels = tokens.size(2) / p.count();
  return tokens.reshape({batch, g.slices, g.rows, g.columns, p.slices, p.height, p.width, channels})
      .permute({0, 7, 1, 4, 2, 5, 3, 6})
      .reshape({batch, channels, g.slices * p.slices * g.rows * p.height, g.columns * p.width});
}

}  // namespace brume::nn
