#pragma once
// From a feature map to one vector an image.
#include "nn/layers.h"

namespace brume::nn {

/// The mean over the positions. x: [B, C, H, W]; returns [B, C].
Tensor mean_pool(const Tensor& x);

/// Attention pooling (Radford et al. 2021, sec. 2.4, as ADM has it): the mean over the positions asks, the mean and the positions
/// answer, and each has a learned place. The projection to the output ("c_proj") is the caller's.
class AttentionPool {
 public:
  /// For maps of `positions` = H x W; heads must divide channels.
  AttentionPool(const Builder& build, int64_t channels, int64_t positions, int64_t heads);
  /// x: [B, C, H, W]; returns [B, C].
  Tensor operator()(const Tensor& x) const;

 private:
  int64_t heads_;
  Tensor places_;  ///< [C, H W + 1]
  Conv2d qkv_;
};

}  // namespace brume::nn
