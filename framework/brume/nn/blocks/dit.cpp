#include "brume/nn/blocks/dit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/unbind.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/blocks/tapped_attention.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/transformer_ops.h"

namespace brume::nn {
namespace {

/// Returns x + gate branch; gate: [B, C].
Tensor gated(const Tensor& x, const Tensor& gate, const Tensor& branch) { return x + gate.unsqueeze(1) * branch; }

}  // namespace

void DitOptions::declare(Fields& f) {
  f.field("patch", patch, "height and width of a patch", within(1, 256));
  f.field("patch_height", patch_height, "height of a patch, if it is not the width; absent: 1 for signals, images of one row",
          within(1, 256));
  f.field("slices", slices, "of volumes, images whose slices stand one below the other: height = slices x rows; 1 = images", at_least(1));
  f.field("patch_slices", patch_slices, "slices of a patch", within(1, 256));
  f.field("width", width, "channels of a token, a multiple of 4", within(4, 65536));
  f.field("depth", depth, "number of blocks", within(1, 1000));
  f.field("heads", heads, "heads of the attention", at_least(1));
  f.field("mlp_ratio", mlp_ratio, "channels within the multilayer perceptron, over width; SwiGLU has two thirds of them", more_than(0));
  f.choice("positions", positions, "added to the patches: fixed sines and cosines, a learned table, or nothing",
           {{"sine", Positions::sine}, {"learned", Positions::learned}, {"none", Positions::none}});
  f.field("position_scale", position_scale, "divides the positions of the sines: 2 (PixArt at 1024 pixels)", more_than(0));
  f.field("rotary", rotary, "rotary positions in the attention, by row and column");
  f.choice("modulation", modulation,
           "noise level and class in a block: a linear layer each (adaLN-Zero), or one for all blocks and a table each (adaLN-single)",
           {{"zero", Modulation::zero}, {"single", Modulation::single}});
  f.choice("tokens", tokens, "tokens of the condition: cross-attention in every block, or put in front of the patches",
           {{"cross_attention", TokenUse::cross_attention}, {"in_context", TokenUse::in_context}});
  f.field("qk_norm", qk_norm, "normalize queries and keys, head by head");
  f.choice("norm", norm, "norm of the blocks", {{"layer", Norm::layer}, {"rms", Norm::rms}});
  f.choice("activation", activation, "of the multilayer perceptron; gelu is the form with tanh",
           {{"gelu", MlpActivation::gelu}, {"swiglu", MlpActivation::swiglu}});
  f.field("long_skips", long_skips, "join each block of the second half with its counterpart in the first (U-ViT)");
  f.field("dropout", dropout, "of the results of attention and perceptron, while training", within(0, 1));
  declare_checkpoint(f, checkpoint);
  f.field("norm_eps", norm_eps, "added to the variance", more_than(0));
  f.field("mlp_norm_eps", mlp_norm_eps, "the same before the perceptron; null = norm_eps", more_than(0));
  f.field("noise_width", noise_width, "features of the noise level, an even number", within(2, 65536));
  f.field("noise_embedding", noise_embedding, "embedding of the noise level", "sinusoidal");
  f.require(width % 4 == 0, "width", "must be a multiple of 4", fmt::format("{} is no multiple of 4", width));
  f.require(heads < 1 || width % heads == 0, "heads", "must divide width",
            fmt::format("{} do not divide width {}", counted(heads, "head"), width));
  const int64_t channels = heads < 1 ? 4 : head();
  const bool deep = patch_slices > 0 && slices / patch_slices > 1;  // several patches along the depth
  const int64_t turned = deep ? 6 : 4;
  f.require(!rotary || channels % turned == 0, "rotary", "needs heads of a multiple of 4 channels, or 6 for volumes",
            fmt::format("rotary positions need heads of a multiple of {}, and they have {}", counted(turned, "channel"), channels));
  f.require(!deep || positions != Positions::sine || width % 6 == 0, "width", "must be a multiple of 12 for sines of three axes",
            fmt::format("{} is no multiple of 12, which sines of three axes need", width));
  f.require(slices < 1 || patch_slices < 1 || slices % patch_slices == 0, "patch_slices", "must divide slices",
            fmt::format("{} does not divide the {}", patch_slices, counted(slices, "slice")));
  f.require(position_scale == 1 || positions == Positions::sine, "position_scale", "needs positions: sine");
  f.require(noise_width % 2 == 0, "noise_width", "must be even");
}

int64_t DitOptions::mlp_width() const {
  const auto plain = int64_t(double(width) * mlp_ratio);
  return std::max<int64_t>(1, activation == MlpActivation::swiglu ? int64_t(2.0 / 3 * double(plain)) : plain);
}

Linear glorot(const Builder& build, const std::string& name, int64_t in, int64_t out, bool bias) {
  Linear layer = build.linear(name, in, out, bias);
  if (SkipInit::now()) return layer;
  const double bound = std::sqrt(6 / double(in + out));
  layer.weight.uniform_(-bound, bound, build.random());
  if (bias) layer.bias.zero_();
  return layer;
}

TokenNorm::TokenNorm(const Builder& build, const std::string& name, Norm kind, int64_t channels, double eps) : kind_(kind), eps_(eps) {
  if (kind == Norm::layer) {
    const LayerNorm layer = build.layer_norm(name, channels, eps);
    weight_ = layer.weight, bias_ = layer.bias;
  } else {
    weight_ = build[name].normal("weight", {channels}, 1);
    if (!SkipInit::now()) weight_.fill_(1);
  }
}

TokenNorm TokenNorm::modulated(const Builder& build, const std::string& name, Norm kind, int64_t channels, double eps) {
  if (kind == Norm::rms) return {build, name, kind, channels, eps};
  TokenNorm norm;
  norm.weight_ = at::ones({channels}, at::kFloat), norm.bias_ = at::zeros({channels}, at::kFloat), norm.eps_ = eps;
  return norm;
}

Tensor TokenNorm::operator()(const Tensor& x) const {
  if (kind_ == Norm::rms) return rms_norm(x, weight_, eps_);
  return layer_norm(x, weight_.to(x.device()), bias_.to(x.device()), eps_);
}

Tensor TokenNorm::operator()(const Tensor& x, const Tensor& scale, const Tensor& shift) const {
  if (kind_ == Norm::rms) return modulate((*this)(x), scale, shift);
  return modulated_layer_norm(x, scale, shift, eps_);
}

DitAttention::DitAttention(const Builder& build, const DitOptions& o) : name_(build.name()), heads_(o.heads), normalizes_(o.qk_norm) {
  qkv_ = glorot(build, "qkv", o.width, 3 * o.width);
  if (normalizes_) {
    q_norm_ = TokenNorm(build, "q_norm", o.norm, o.head(), o.norm_eps);
    k_norm_ = TokenNorm(build, "k_norm", o.norm, o.head(), o.norm_eps);
  }
  out_ = glorot(build, "proj", o.width, o.width);
}

Tensor DitAttention::placed(const Tensor& heads, const TokenNorm& norm, const RotaryTable* rotary) const {
  const Tensor x = normalizes_ ? norm(heads) : heads;
  if (!rotary) return x;
  const int64_t patches = rotary->cosines.size(0), front = x.size(2) - patches;
  const Tensor turned = rotate(x.narrow(2, front, patches), rotary->cosines, rotary->sines);
  return front == 0 ? turned : at::cat({x.narrow(2, 0, front), turned}, 2);
}

Tensor DitAttention::operator()(const Tensor& x, const RotaryTable* rotary, const Tensor& mask, const Taps* taps) const {
  const int64_t b = x.size(0), n = x.size(1), d = x.size(2) / heads_;
  const std::vector<Tensor> part = at::unbind(qkv_(x).reshape({b, n, 3, heads_, d}).permute({2, 0, 3, 1, 4}));
  const Tensor q = placed(part[0], q_norm_, rotary), k = placed(part[1], k_norm_, rotary);
  return out_(merge_heads(tapped_attention(taps, name_, q, k, part[2], mask)));
}

DitCrossAttention::DitCrossAttention(const Builder& build, const DitOptions& o) : name_(build.name()), heads_(o.heads) {
  q_ = glorot(build, "q_linear", o.width, o.width);
  kv_ = glorot(build, "kv_linear", o.width, 2 * o.width);
  out_ = zeroed(build.linear("proj", o.width, o.width));
}

Tensor DitCrossAttention::operator()(const Tensor& x, const Tokens& tokens, const Taps* taps) const {
  const Tensor kv = kv_(tokens.values);
  const int64_t width = kv.size(2) / 2;
  const Tensor k = split_heads(kv.narrow(2, 0, width), heads_), v = split_heads(kv.narrow(2, width, width), heads_);
  return out_(merge_heads(tapped_attention(taps, name_, split_heads(q_(x), heads_), k, v, tokens.mask)));
}

DitBlock::DitBlock(const Builder& build, const DitOptions& o, bool attends, bool joins)
    : name_(build.name()),
      dropout_(o.dropout),
      activation_(o.activation),
      norm1_(TokenNorm::modulated(build, "norm1", o.norm, o.width, o.norm_eps)),
      norm2_(TokenNorm::modulated(build, "norm2", o.norm, o.width, o.mlp_norm_eps.value_or(o.norm_eps))),
      attention_(build["attn"], o) {
  const bool swiglu = o.activation == MlpActivation::swiglu;
  const Builder mlp = build["mlp"];
  if (attends) cross_.emplace(build["cross_attn"], o);
  if (joins) join_ = glorot(build, "skip_linear", 2 * o.width, o.width);
  wide_ = glorot(mlp, swiglu ? "w12" : "fc1", o.width, o.mlp_width() * (swiglu ? 2 : 1));
  narrow_ = glorot(mlp, swiglu ? "w3" : "fc2", o.mlp_width(), o.width);
  if (o.modulation == Modulation::single)
    table_ = build.normal("scale_shift_table", {6, o.width}, 1 / std::sqrt(double(o.width)));
  else
    modulation_ = zeroed(build.linear("adaLN_modulation.1", o.width, 6 * o.width));
}

Tensor DitBlock::mlp(const Tensor& x) const {
  const Tensor h = wide_(x);
  return narrow_(activation_ == MlpActivation::swiglu ? swiglu(h) : gelu_tanh(h));
}

Tensor DitBlock::operator()(Tensor x, const Tensor* earlier, const DitState& s) const {
  if (earlier) x = (*join_)(at::cat({x, *earlier}, 2));
  const Tensor six = table_.defined() ? s.modulation + table_.to(x.scalar_type()).reshape({1, -1}) : modulation_(s.modulation);
  const std::vector<Tensor> m = six.chunk(6, 1);  // shift, scale and gate of the attention, then of the perceptron
  x = gated(x, m[2], dropout(attention_(norm1_(x, m[1], m[0]), s.rotary, s.mask, s.taps), dropout_, s.dropout));
  if (cross_) x = x + dropout((*cross_)(x, s.tokens, s.taps), dropout_, s.dropout);
  return gated(x, m[5], dropout(mlp(norm2_(x, m[4], m[3])), dropout_, s.dropout));
}

void DitBlock::add_to(TapPoints& points) const {
  points.blocks.push_back(name_);
  points.skippable.push_back(name_);
  points.attention.push_back(attention_.name());
  if (cross_) points.attention.push_back(cross_->name());
}

}  // namespace brume::nn
