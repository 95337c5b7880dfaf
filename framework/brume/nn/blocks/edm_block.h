#pragma once
// The residual block of EDM's networks (Karras et al. 2022, app. F), the union of DDPM++'s, NCSN++'s and ADM's:
//
//   h = conv0(silu(norm0(x)))  at the new resolution;   e = affine(embedding)
//   h = conv1(dropout(silu(norm1(h + e))))   or, with e = (scale, shift),   conv1(dropout(silu(norm1(h) (1 + scale) + shift)))
//   h = (skip(x) + h) skip_scale;   with attention   h = (h + proj(attention(qkv(norm2(h))))) skip_scale
//
// Weights are named as in the UNetBlock of NVlabs/edm.
#include <cmath>
#include <optional>

#include "brume/nn/blocks/layers.h"
#include "brume/nn/blocks/resblock.h"
#include "brume/nn/ops/fir_filter.h"

namespace brume::nn {

/// What all blocks of a network have in common.
struct EdmBlockStyle {
  int64_t embedding = 0;  ///< width of the embedding
  bool scale_shift = true;
  bool project_skip = false;  ///< a 1x1 convolution on the skip of every change of resolution, also if the channels stay
  bool xavier = false;        ///< first values, instead of PyTorch's
  bool zero_init = true;
  double dropout = 0, skip_scale = 1, eps = 1e-5;
  Filter filter{};
};

/// Returns the number of groups of at least 4 channels, at most 32 of them.
inline int64_t edm_groups(int64_t channels) { return std::min<int64_t>(32, channels / 4); }
GroupNorm edm_norm(const Builder& build, const std::string& name, int64_t channels, double eps);

/// Returns the layer with uniform first values of variance 2 gain^2 / (fan in + fan out) and no bias (Glorot & Bengio 2010), if `wanted`.
template <class Layer>
Layer xavier(Layer layer, bool wanted, double gain = 1) {
  if (!wanted || SkipInit::now()) return layer;
  const double in = double(layer.weight.size(1)), out = double(layer.weight.size(0));  // given: uniform of bound 1 / sqrt(fan in)
  layer.weight.mul_(gain * std::sqrt(6 * in / (in + out)));
  if (layer.bias.defined()) layer.bias.zero_();
  return layer;
}

struct EdmBlockShape {
  int64_t in = 0, out = 0;
  Resample resample = Resample::none;
  int64_t heads = 0;  ///< of the attention at its end; 0 = none
};

class EdmBlock {
 public:
  EdmBlock(const Builder& build, const EdmBlockStyle& style, const EdmBlockShape& shape);
  /// Returns [B, out, H', W']. x: [B, in, H, W]; embedding: [B, E] after its SiLU.
  Tensor operator()(const Tensor& x, const Tensor& embedding, at::Generator* dropout) const;

 private:
  Tensor resampled(const Tensor& x) const;
  Tensor attended(Tensor h) const;
  Tensor scaled(const Tensor& sum) const;

  EdmBlockStyle style_;
  EdmBlockShape shape_;
  GroupNorm norm0_, norm1_, norm2_;
  Conv2d conv0_, conv1_, qkv_, proj_;
  Linear affine_;
  std::optional<Conv2d> skip_;
};

}  // namespace brume::nn
