#pragma once
// Self-attention over the pixels of a feature map, as ADM has it (Dhariwal & Nichol 2021; Ho et al. 2020, app. B).
#include "brume/core/taps.h"
#include "brume/nn/blocks/layers.h"

namespace brume::nn {

/// How the 3C channels of the projection are cut: heads first (improved-diffusion, "legacy"), or q, k, v first.
enum class QkvOrder { heads_first, qkv_first };

class AttentionBlock {
 public:
  AttentionBlock(const Builder& build, int64_t channels, int64_t heads, QkvOrder order, int64_t groups, bool zero_init, double eps = 1e-5);
  /// Returns x + projection(attention(norm(x))). x: [B, C, H, W]. `taps`: null = none.
  Tensor operator()(Tensor x, const Taps* taps = nullptr) const;

 private:
  std::string name_;
  int64_t heads_;
  QkvOrder order_;
  GroupNorm norm_;
  Conv2d qkv_, out_;
};

}  // namespace brume::nn
