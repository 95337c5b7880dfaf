#include "brume/nn/blocks/text_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include "brume/core/formed_weights.h"
#include "brume/nn/blocks/recompute.h"

namespace brume::nn {

TextEncoder::TextEncoder(const Builder& build, const TextEncoderOptions& options) : o_(options) {
  // As large as what the layers add to them, or a token's identity drowns in the first layers' averages and is learned late.
  constexpr double std = 0.5;
  tokens_ = {build["embeddings"]["token_embedding"].normal("weight", {o_.rows, o_.width}, std, true)};
  positions_ = {build["embeddings"]["position_embedding"].normal("weight", {o_.length, o_.width}, std, true)};
  for (int64_t i = 0; i < o_.depth; ++i) {
    const Builder part = build["encoder"]["layers"][i], attention = part["self_attn"];
    Layer layer;
    layer.norm1 = part.layer_norm("layer_norm1", o_.width);
    layer.q = attention.linear("q_proj", o_.width, o_.width);
    layer.k = attention.linear("k_proj", o_.width, o_.width);
    layer.v = attention.linear("v_proj", o_.width, o_.width);
    layer.out = attention.linear("out_proj", o_.width, o_.width);
    layer.norm2 = part.layer_norm("layer_norm2", o_.width);
    layer.up = part["mlp"].linear("fc1", o_.width, o_.mlp);
    layer.down = part["mlp"].linear("fc2", o_.mlp, o_.width);
    layers_.push_back(layer);
  }
  norm_ = build.layer_norm("final_layer_norm", o_.width);
}

Tensor TextEncoder::attend(const Layer& layer, Tensor sum, const AttentionMask& mask) const {
  const Tensor h = layer.norm1(sum);
  const auto heads = [&](const Tensor& t) { return t.view({t.size(0), t.size(1), o_.heads, -1}).transpose(1, 2); };
  const Tensor a = attention(heads(layer.q(h)), heads(layer.k(h)), heads(layer.v(h)), mask);
  return layer.out.onto(std::move(sum), a.transpose(1, 2).reshape(h.sizes()));
}

Tensor TextEncoder::through(const Layer& layer, Tensor h, const AttentionMask& mask) const {
  h = attend(layer, std::move(h), mask);
  const Tensor up = layer.up(layer.norm2(h));
  return layer.down.onto(std::move(h), o_.quick_gelu ? quick_gelu(up) : gelu(up));
}

/// Maps [B * length] to [B * length, width].
Tensor TextEncoder::embedded(const Tensor& ids, const Tensor& more) const {
  if (!more.defined()) return tokens_(ids);
  const Tensor own = tokens_(ids.clamp_max(o_.rows - 1)).to(at::kFloat),
               added = more.to(own.options()).index_select(0, (ids - o_.rows).clamp_min(0));
  return at::where((ids >= o_.rows).unsqueeze(1), added, own);
}

EncodedText TextEncoder::operator()(const Tensor& ids, const AttentionMask& mask, at::ScalarType dtype, const TextReading& r) const {
  const Tensor tokens = embedded(ids.reshape({-1}), r.more).view({ids.size(0), ids.size(1), o_.width});
  Tensor h = tokens.to(dtype) + FormedWeights::of(positions_.weight).to(dtype);
  const int64_t used = o_.depth - r.skip;
  EncodedText out;
  for (int64_t i = 0; i < (r.whole ? o_.depth : used); ++i) {
    if (i == used) out.tokens = r.final_norm ? norm_(h) : h.clone();  // the next layer adds to h in its place
    const Layer& layer = layers_[size_t(i)];
    if (o_.checkpoint && Recomputation::possible())
      h = recomputed(true, nullptr, [=, this, &layer](at::Generator*) { return through(layer, h, mask); });
    else
      h = through(layer, std::move(h), mask);
  }
  if (r.whole) out.last = norm_(h);
  if (!out.tokens.defined()) out.tokens = !r.final_norm ? h : r.whole ? out.last : norm_(h);
  return out;
}

}  // namespace brume::nn
