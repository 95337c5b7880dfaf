#include "nn/ops.h"

#include <ATen/Context.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mkldnn_convolution.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <cmath>

namespace brume::nn {
namespace {

/// oneDNN chooses its kernel by the layer, not by the batch; ATen takes other paths for small inputs.
bool onednn(const Tensor& x) {
  return x.device().is_cpu() && at::globalContext().userEnabledMkldnn() && at::hasMKLDNN() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

/// [B * heads, ...] in one product while training; image by image otherwise, so that no path depends on the batch.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v) {
  const Tensor scores = at::bmm(q, k.transpose(1, 2));
  const Tensor weights = at::softmax(scores, -1, at::kFloat).to(q.scalar_type());
  return at::bmm(weights, v);
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding) {
  Tensor w = weight.dim() == 3 ? weight.unsqueeze(-1) : weight;
  w = w.to(x.scalar_type());
  const Tensor b = bias.defined() ? bias.to(x.scalar_type()) : bias;
  const std::vector<int64_t> s{stride, stride}, p{padding, padding}, d{1, 1};
  if (onednn(x)) return at::mkldnn_convolution(x.contiguous(at::MemoryFormat::ChannelsLast), w, b, p, s, d, 1);
  return at::convolution(x, w, b, s, p, d, false, {0, 0}, 1);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (!onednn(x)) return at::linear(x, weight.to(x.scalar_type()), bias.defined() ? bias.to(x.scalar_type()) : bias);
  // As a 1 x 1 convolution over the tokens: the same kernel for every batch.
  const int64_t batch = x.size(0), tokens = x.dim() == 3 ? x.size(1) : 1;
  const Tensor image = x.reshape({batch, tokens, 1, x.size(-1)}).permute({0, 3, 1, 2});
  const Tensor y = conv2d(image, weight.view({weight.size(0), weight.size(1), 1, 1}), bias).permute({0, 2, 3, 1});
  return x.dim() == 3 ? y.reshape({batch, tokens, weight.size(0)}) : y.reshape({batch, weight.size(0)});
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  const Tensor scaled = q * (1 / std::sqrt(double(q.size(-1))));
  if (at::GradMode::is_enabled() || !q.device().is_cpu()) {
    const auto flat = [](const Tensor& t) { return t.reshape({t.size(0) * t.size(1), t.size(2), t.size(3)}); };
    return attend(flat(scaled), flat(k), flat(v)).view({q.size(0), q.size(1), q.size(2), v.size(3)});
  }
  Tensor out = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
  for (int64_t i = 0; i < q.size(0); ++i)
    out.select(0, i).copy_(attend(scaled.select(0, i).contiguous(), k.select(0, i).contiguous(), v.select(0, i).contiguous()));
  return out;
}

Tensor silu(const Tensor& x) { return at::silu(x); }

Tensor upsample(const Tensor& x) { return at::upsample_nearest2d(x, {x.size(2) * 2, x.size(3) * 2}); }

Tensor downsample(const Tensor& x) { return at::avg_pool2d(x, {2, 2}, {2, 2}); }

Tensor dropout(const Tensor& x, double p, at::Generator* random) {
  if (!random || p == 0) return x;
  const Tensor keep = at::empty_like(x).bernoulli_(1 - p, *random);
  return x * keep * (1 / (1 - p));
}

}  // namespace brume::nn
