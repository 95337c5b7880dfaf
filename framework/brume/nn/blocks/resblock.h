#pragma once
// The residual block of DDPM's U-Net with the options of ADM (Dhariwal & Nichol 2021, sec. 3).
#include "brume/nn/blocks/layers.h"

namespace brume::nn {

enum class Resample { none, up, down };

struct ResBlockOptions {
  int64_t in = 0, out = 0;
  int64_t embedding = 0;     ///< width of the time (and class) embedding
  bool scale_shift = false;  ///< AdaGN: norm(h) (1 + scale) + shift, instead of h + embedding
  Resample resample = Resample::none;
  double dropout = 0;
  int64_t groups = 32;
  bool zero_init = true;
  double eps = 1e-5;  ///< of the norms
};

/// h = conv(silu(norm(x))) at the new resolution, modulated by the embedding; out = skip(x) + conv(dropout(silu(norm(h)))).
class ResBlock {
 public:
  ResBlock(const Builder& build, const ResBlockOptions& options);
  /// Returns [B, out, H', W']. x: [B, in, H, W]; embedding: [B, E] after its SiLU.
  Tensor operator()(const Tensor& x, const Tensor& embedding, at::Generator* dropout) const;

 private:
  ResBlockOptions o_;
  GroupNorm in_norm_, out_norm_;
  Conv2d in_conv_, out_conv_;
  Linear embed_;
  Conv2d skip_;
};

}  // namespace brume::nn
