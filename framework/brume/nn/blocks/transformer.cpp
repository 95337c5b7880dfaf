#include "brume/nn/blocks/transformer.h"

#include <ATen/TensorOperators.h>

#include <stdexcept>

#include "brume/nn/blocks/tapped_attention.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

/// Returns sum + dropout(layer(x)).
Tensor add(Tensor sum, const Linear& layer, const Tensor& x, double p, at::Generator* random) {
  return random && p > 0 ? sum + dropout(layer(x), p, random) : layer.onto(std::move(sum), x);
}

}  // namespace

CrossAttention::CrossAttention(const Builder& build, int64_t channels, int64_t context, int64_t heads)
    : name_(build.name()), heads_(heads) {
  q_ = build.linear("to_q", channels, channels, false);
  k_ = build.linear("to_k", context, channels, false);
  v_ = build.linear("to_v", context, channels, false);
  out_ = build.linear("to_out.0", channels, channels);
}

Tensor CrossAttention::onto(Tensor sum, const Tensor& x, const Tokens& tokens, double p, at::Generator* random, const Taps* taps) const {
  const Tensor& context = tokens.values.defined() ? tokens.values : x;
  const auto split = [&](const Tensor& t) { return split_heads(t, heads_); };
  const Tensor a = tapped_attention(taps, name_, split(q_(x)), split(k_(context)), split(v_(context)), tokens.mask);
  return add(std::move(sum), out_, merge_heads(a), p, random);
}

TransformerBlock::TransformerBlock(const Builder& build, int64_t channels, int64_t context, int64_t heads, double dropout, bool only_cross)
    : name_(build.name()),
      dropout_(dropout),
      only_cross_(only_cross),
      self_(build["attn1"], channels, only_cross ? context : channels, heads),
      cross_(build["attn2"], channels, context > 0 ? context : channels, heads) {
  constexpr int64_t widening = 4;
  wide_ = build.linear("ff.net.0.proj", channels, 2 * widening * channels);
  narrow_ = build.linear("ff.net.2", widening * channels, channels);
  for (int64_t i = 0; i < 3; ++i) norms_[i] = build.layer_norm("norm" + std::to_string(i + 1), channels);
}

Tensor TransformerBlock::operator()(Tensor x, const Tokens& tokens, at::Generator* random, const Taps* taps) const {
  Tensor h = norms_[0](x);
  x = self_.onto(std::move(x), h, only_cross_ ? tokens : Tokens{}, dropout_, random, taps);
  h = norms_[1](x);
  x = cross_.onto(std::move(x), h, tokens, dropout_, random, taps);
  h = norms_[2](x);
  h = dropout(geglu(wide_(h)), dropout_, random);
  return narrow_.onto(std::move(x), h);
}

void TransformerBlock::add_to(TapPoints& points) const {
  points.blocks.push_back(name_);
  points.skippable.push_back(name_);
  if (!only_cross_) points.attention.push_back(name_ + ".attn1");
  points.attention.push_back(name_ + ".attn2");
}

SpatialTransformer::SpatialTransformer(const Builder& build, const TransformerOptions& o) : attends_(o.context > 0) {
  norm_ = build.group_norm("norm", o.channels, o.groups);
  norm_.eps = 1e-6;
  const bool conv = o.projection == Projection::conv;
  if (conv) conv_in_ = build.conv2d("proj_in", o.channels, o.channels, 1);
  if (!conv) linear_in_ = build.linear("proj_in", o.channels, o.channels);
  for (int64_t i = 0; i < o.depth; ++i)
    blocks_.emplace_back(build["transformer_blocks"][i], o.channels, o.context, o.heads, o.dropout, o.only_cross);
  if (conv) conv_out_ = build.conv2d("proj_out", o.channels, o.channels, 1);
  if (!conv) linear_out_ = build.linear("proj_out", o.channels, o.channels);
  if (o.zero_init && conv) conv_out_ = zeroed(conv_out_);
  if (o.zero_init && !conv) linear_out_ = zeroed(linear_out_);
}

Tensor SpatialTransformer::operator()(Tensor x, const Tokens& tokens, at::Generator* random, const Taps* taps) const {
  if (attends_ && !tokens.values.defined()) throw std::logic_error("a network that attends to tokens was given none");
  const int64_t b = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
  // Channels last already: neither way copies.
  const auto sequence = [&](const Tensor& t) { return t.permute({0, 2, 3, 1}).reshape({b, h * w, c}); };
  const auto image = [&](const Tensor& t) { return t.view({b, h, w, c}).permute({0, 3, 1, 2}); };
  const bool conv = conv_in_.weight.defined();
  Tensor z = norm_(x);
  z = conv ? sequence(conv_in_(z)) : linear_in_(sequence(z));
  for (const TransformerBlock& block : blocks_) {
    const auto run = [&](Tensor in) { return block(std::move(in), attends_ ? tokens : Tokens{}, random, taps); };
    z = taps ? taps->apply(block.name(), z, [&] { return run(z); }) : run(std::move(z));
  }
  if (conv) return conv_out_.onto(std::move(x), image(z));
  x = sequence(x);
  return image(linear_out_.onto(std::move(x), z));
}

void SpatialTransformer::add_to(TapPoints& points) const {
  for (const TransformerBlock& block : blocks_) block.add_to(points);
}

}  // namespace brume::nn
