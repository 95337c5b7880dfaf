#pragma once
// From a feature map to one vector per image.
#include <optional>

#include "brume/nn/blocks/layers.h"

namespace brume::nn {

/// Returns the mean over the positions. x: [B, C, H, W]; returns [B, C].
Tensor mean_pool(const Tensor& x);

/// Attention pooling (Radford et al. 2021, sec. 2.4, as ADM has it): the mean over the positions asks, the mean and the positions
/// answer, and each has a learned place. The projection to the output ("c_proj") is the caller's.
class AttentionPool {
 public:
  /// Makes a pool for maps of `positions` = H x W; heads must divide channels.
  AttentionPool(const Builder& build, int64_t channels, int64_t positions, int64_t heads);
  /// Returns [B, C]. x: [B, C, H, W].
  Tensor operator()(const Tensor& x) const;

 private:
  int64_t heads_;
  Tensor places_;  ///< [C, H W + 1]
  Conv2d qkv_;
};

/// Spatial pooling of ADM's classifiers: the means of every feature map of the encoder and of the middle's, and a layer that makes 2048
/// features of them all, relu(W m) or, `normed`, silu(norm(W m)). Weights are those of guided-diffusion's "spatial" and "spatial_v2".
class SpatialPool {
 public:
  /// Makes a pool. `channels`: of all maps together.
  SpatialPool(const Builder& build, int64_t channels, bool normed);
  static constexpr int64_t features = 2048;
  /// Returns [B, features]. means: [B, channels].
  Tensor operator()(const Tensor& means) const;

 private:
  Linear linear_;
  std::optional<GroupNorm> norm_;
};

}  // namespace brume::nn
