#include "brume/nn/blocks/resblock.h"

#include <ATen/TensorOperators.h>

#include "brume/nn/ops/ops.h"

namespace brume::nn {

ResBlock::ResBlock(const Builder& build, const ResBlockOptions& o) : o_(o) {
  in_norm_ = build.group_norm("in_layers.0", o.in, o.groups);
  in_conv_ = build.conv2d("in_layers.2", o.in, o.out, 3);
  embed_ = build.linear("emb_layers.1", o.embedding, o.scale_shift ? 2 * o.out : o.out);
  out_norm_ = build.group_norm("out_layers.0", o.out, o.groups);
  out_conv_ = build.conv2d("out_layers.3", o.out, o.out, 3);
  in_norm_.eps = out_norm_.eps = o.eps;
  if (o.zero_init) out_conv_ = zeroed(out_conv_);
  if (o.in != o.out) skip_ = build.conv2d("skip_connection", o.in, o.out, 1);
}

Tensor ResBlock::operator()(const Tensor& x, const Tensor& embedding, at::Generator* random) const {
  const auto resample = [&](const Tensor& t) {
    return o_.resample == Resample::up ? upsample(t) : o_.resample == Resample::down ? downsample(t) : t;
  };
  Tensor h = in_conv_(resample(in_norm_.silu(x)));
  const Tensor e = embed_(embedding);
  if (o_.scale_shift) {
    h = out_norm_.silu(h, e.narrow(1, 0, o_.out), e.narrow(1, o_.out, o_.out));
  } else {
    h = out_norm_.silu_of_sum(h, e);
  }
  h = dropout(h, o_.dropout, random);
  Tensor skip = resample(x);
  if (skip_.weight.defined()) skip = skip_(skip);
  return out_conv_.onto(std::move(skip), h);
}

}  // namespace brume::nn
