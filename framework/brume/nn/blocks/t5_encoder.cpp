#include "brume/nn/blocks/t5_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/log.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <limits>

#include "brume/nn/blocks/tapped_attention.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/transformer_ops.h"

namespace brume::nn {
namespace {

/// Returns a matrix without a bias that may stay in the dtype of its file, and is converted whenever it is used.
Tensor matrix(const Builder& build, const std::string& name, int64_t in, int64_t out) {
  return build[name].normal("weight", {out, in}, 1 / std::sqrt(double(in)), true);
}

Tensor scale(const Builder& build, const std::string& name, int64_t width) {
  const Tensor weight = build[name].normal("weight", {width}, 1);
  if (!SkipInit::now()) weight.fill_(1);
  return weight;
}

}  // namespace

Tensor t5_buckets(int64_t queries, int64_t keys, int64_t buckets, int64_t max_distance) {
  const Tensor distance = at::arange(keys).unsqueeze(0) - at::arange(queries).unsqueeze(1), far = distance.abs();
  const int64_t half = buckets / 2, exact = half / 2;
  const Tensor logarithm = (far.to(at::kFloat) / double(exact)).log() / std::log(double(max_distance) / double(exact));
  const Tensor coarse = ((logarithm * double(half - exact)).clamp_min(0).to(at::kLong) + exact).clamp_max(half - 1);
  return (distance > 0).to(at::kLong) * half + at::where(far < exact, far, coarse);
}

T5Encoder::T5Encoder(const Builder& build, const T5Options& options) : o_(options) {
  tokens_ = build["shared"].normal("weight", {o_.rows, o_.width}, 1, true);
  const int64_t inner = o_.heads * o_.head;
  const Builder encoder = build["encoder"];
  for (int64_t i = 0; i < o_.depth; ++i) {
    const Builder parts = encoder["block"][i]["layer"], attention = parts[0]["SelfAttention"], mlp = parts[1]["DenseReluDense"];
    Layer layer;
    layer.norm1 = scale(parts[0], "layer_norm", o_.width);
    layer.q = matrix(attention, "q", o_.width, inner);
    layer.k = matrix(attention, "k", o_.width, inner);
    layer.v = matrix(attention, "v", o_.width, inner);
    layer.out = matrix(attention, "o", inner, o_.width);
    if (i == 0) bias_ = attention["relative_attention_bias"].normal("weight", {o_.buckets, o_.heads}, 1);
    layer.norm2 = scale(parts[1], "layer_norm", o_.width);
    const bool gated = o_.feed_forward == T5FeedForward::gated_gelu;
    if (gated) layer.gate = matrix(mlp, "wi_0", o_.width, o_.mlp);
    layer.up = matrix(mlp, gated ? "wi_1" : "wi", o_.width, o_.mlp);
    layer.down = matrix(mlp, "wo", o_.mlp, o_.width);
    layers_.push_back(layer);
  }
  norm_ = scale(encoder, "final_layer_norm", o_.width);
}

Tensor T5Encoder::position_bias(int64_t length) const {
  const Tensor rows = t5_buckets(length, length, o_.buckets, o_.max_distance).reshape({-1}).to(bias_.device());
  return bias_.to(at::kFloat).index_select(0, rows).view({length, length, o_.heads}).permute({2, 0, 1}).unsqueeze(0);
}

Tensor T5Encoder::feed_forward(const Layer& layer, const Tensor& x) const {
  const Tensor up = linear(x, layer.up, {});
  return linear(layer.gate.defined() ? gelu_tanh(linear(x, layer.gate, {})) * up : relu(up), layer.down, {});
}

Tensor T5Encoder::operator()(const Tensor& ids, const Tensor& mask, at::ScalarType dtype) const {
  const int64_t count = ids.size(0), length = ids.size(1);
  Tensor h = tokens_.index_select(0, ids.reshape({-1})).to(dtype).view({count, length, o_.width}), bias = position_bias(length);
  if (mask.defined()) bias = bias + (1 - mask.to(at::kFloat)).view({count, 1, 1, length}) * double(std::numeric_limits<float>::lowest());
  for (const Layer& layer : layers_) {
    const Tensor x = rms_norm(h, layer.norm1, o_.eps);
    const auto heads = [&](const Tensor& weight) { return split_heads(linear(x, weight, {}), o_.heads); };
    const Tensor scores = at::matmul(heads(layer.q), heads(layer.k).transpose(2, 3)).to(at::kFloat) + bias;
    h = h + linear(merge_heads(at::matmul(at::softmax(scores, 3).to(dtype), heads(layer.v))), layer.out, {});
    h = h + feed_forward(layer, rms_norm(h, layer.norm2, o_.eps));
  }
  return rms_norm(h, norm_, o_.eps);
}

}  // namespace brume::nn
