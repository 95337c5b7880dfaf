#include "brume/nn/blocks/edm_block.h"

#include <ATen/TensorOperators.h>

#include "brume/nn/ops/ops.h"

namespace brume::nn {

GroupNorm edm_norm(const Builder& build, const std::string& name, int64_t channels, double eps) {
  GroupNorm norm = build.group_norm(name, channels, edm_groups(channels));
  norm.eps = eps;
  return norm;
}

EdmBlock::EdmBlock(const Builder& build, const EdmBlockStyle& style, const EdmBlockShape& shape) : style_(style), shape_(shape) {
  const auto [in, out, resample, heads] = shape;
  const auto first = [&](auto layer, double gain = 1) { return xavier(layer, style.xavier, gain); };
  const auto last = [&](const Conv2d& conv) { return style.zero_init ? zeroed(conv) : first(conv); };
  norm0_ = edm_norm(build, "norm0", in, style.eps);
  conv0_ = first(build.conv2d("conv0", in, out, 3));
  affine_ = first(build.linear("affine", style.embedding, style.scale_shift ? 2 * out : out));
  norm1_ = edm_norm(build, "norm1", out, style.eps);
  conv1_ = last(build.conv2d("conv1", out, out, 3));
  if (in != out || (resample != Resample::none && style.project_skip)) skip_ = first(build.conv2d("skip", in, out, 1));
  if (heads == 0) return;
  norm2_ = edm_norm(build, "norm2", out, style.eps);
  qkv_ = first(build.conv2d("qkv", out, 3 * out, 1), std::sqrt(0.2));
  proj_ = last(build.conv2d("proj", out, out, 1));
}

Tensor EdmBlock::resampled(const Tensor& x) const {
  if (shape_.resample == Resample::none) return x;
  return shape_.resample == Resample::up ? style_.filter.up(x) : style_.filter.down(x);
}

Tensor EdmBlock::operator()(const Tensor& x, const Tensor& embedding, at::Generator* random) const {
  Tensor h = conv0_(resampled(norm0_.silu(x)));
  const Tensor e = affine_(embedding);
  if (style_.scale_shift) {
    h = norm1_.silu(h, e.narrow(1, 0, shape_.out), e.narrow(1, shape_.out, shape_.out));
  } else {
    h = norm1_.silu_of_sum(h, e);
  }
  h = dropout(h, style_.dropout, random);
  Tensor skip = resampled(x);
  if (skip_) skip = (*skip_)(skip);
  h = scaled(conv1_.onto(std::move(skip), h));
  return shape_.heads > 0 ? attended(std::move(h)) : h;
}

Tensor EdmBlock::scaled(const Tensor& sum) const { return style_.skip_scale == 1 ? sum : sum * style_.skip_scale; }

Tensor EdmBlock::attended(Tensor h) const {
  const int64_t b = h.size(0), c = h.size(1), height = h.size(2), width = h.size(3), heads = shape_.heads;
  // The 3C channels are heads, then the width of a head, then q, k and v.
  const Tensor rows = qkv_(norm2_(h)).permute({0, 2, 3, 1}).reshape({b, height * width, heads, c / heads, 3});
  const Tensor qkv = rows.permute({4, 0, 2, 1, 3});
  const Tensor a = attention(qkv[0], qkv[1], qkv[2]);  // [B, heads, N, d]
  return scaled(proj_.onto(std::move(h), a.permute({0, 2, 1, 3}).reshape({b, height, width, c}).permute({0, 3, 1, 2})));
}

}  // namespace brume::nn
