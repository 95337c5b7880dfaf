#include "brume/nn/blocks/joint_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/unbind.h>

#include "brume/nn/blocks/tapped_attention.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/transformer_ops.h"

namespace brume::nn {
namespace {

Tensor gated(const Tensor& x, const Tensor& gate, const Tensor& branch) { return x + gate.unsqueeze(1) * branch; }

/// Returns [B, N, 3 C] as queries, keys and values.
std::vector<Tensor> in_heads(const Tensor& qkv, int64_t heads) {
  const int64_t width = qkv.size(2) / 3;
  return at::unbind(qkv.reshape({qkv.size(0), qkv.size(1), 3, heads, width / heads}).permute({2, 0, 3, 1, 4}));
}

}  // namespace

Tensor rotated(const Tensor& x, const RotaryTable* rotary) {
  if (!rotary) return x;
  const int64_t patches = rotary->cosines.size(0), front = x.size(2) - patches;
  const Tensor turned = rotate(x.narrow(2, front, patches), rotary->cosines, rotary->sines);
  return front == 0 ? turned : at::cat({x.narrow(2, 0, front), turned}, 2);
}

StreamAttention::StreamAttention(const Builder& build, const JointOptions& o, bool projects) : name_(build.name()), heads_(o.heads) {
  qkv_ = glorot(build, "qkv", o.width, 3 * o.width);
  if (projects) out_ = glorot(build, "proj", o.width, o.width);
  if (!o.qk_norm) return;
  q_norm_ = TokenNorm(build, "ln_q", Norm::rms, o.width / o.heads, o.eps);
  k_norm_ = TokenNorm(build, "ln_k", Norm::rms, o.width / o.heads, o.eps);
}

Qkv StreamAttention::operator()(const Tensor& x, const RotaryTable* rotary) const {
  const std::vector<Tensor> part = in_heads(qkv_(x), heads_);
  const Tensor q = q_norm_ ? (*q_norm_)(part[0]) : part[0], k = k_norm_ ? (*k_norm_)(part[1]) : part[1];
  return {rotated(q, rotary), rotated(k, rotary), part[2]};
}

Stream::Stream(const Builder& build, const JointOptions& o, bool ends, bool dual)
    : ends_(ends),
      eps_(o.eps),
      attention_(build["attn"], o, !ends),
      norm_(TokenNorm::modulated(build, "norm1", Norm::layer, o.width, o.eps)) {
  modulation_ = zeroed(build.linear("adaLN_modulation.1", o.width, (ends ? 2 : dual ? 9 : 6) * o.width));
  if (ends) return;
  if (dual) own_.emplace(build["attn2"], o, true);
  wide_ = glorot(build["mlp"], "fc1", o.width, o.mlp_width());
  narrow_ = glorot(build["mlp"], "fc2", o.mlp_width(), o.width);
}

std::vector<Tensor> Stream::modulation(const Tensor& embedding) const {
  const Tensor all = modulation_(embedding);
  return all.chunk(ends_ ? 2 : own_ ? 9 : 6, 1);
}

Qkv Stream::qkv(const Tensor& x, const std::vector<Tensor>& m, const RotaryTable* rotary) const {
  return attention_(norm_(x, m[1], m[0]), rotary);
}

Tensor Stream::finish(const Tensor& x, const Tensor& attended, const std::vector<Tensor>& m, const JointState& state) const {
  Tensor y = gated(x, m[2], attention_.project(attended));
  if (own_) {
    const Qkv own = (*own_)(norm_(x, m[7], m[6]), state.rotary);
    y = gated(y, m[8], own_->project(merge_heads(tapped_attention(state.taps, own_->name(), own.q, own.k, own.v))));
  }
  return gated(y, m[5], narrow_(gelu_tanh(wide_(norm_(y, m[4], m[3])))));
}

void Stream::add_to(TapPoints& points) const {
  if (own_) points.attention.push_back(own_->name());
}

JointBlock::JointBlock(const Builder& build, const JointOptions& o, bool words, bool last, bool dual)
    : name_(build.name()), patches_(build["x_block"], o, false, dual) {
  if (words) words_.emplace(build["context_block"], o, last, false);
}

void JointBlock::operator()(Tensor& words, Tensor& patches, const JointState& state) const {
  const std::vector<Tensor> m = patches_.modulation(state.embedding);
  const Qkv own = patches_.qkv(patches, m, state.rotary);
  if (!words_) {
    patches = patches_.finish(patches, merge_heads(tapped_attention(state.taps, name_, own.q, own.k, own.v)), m, state);
    return;
  }
  const std::vector<Tensor> w = words_->modulation(state.embedding);
  const Qkv other = words_->qkv(words, w, nullptr);
  const auto both = [](const Tensor& a, const Tensor& b) { return at::cat({a, b}, 2); };
  const Tensor all =
      merge_heads(tapped_attention(state.taps, name_, both(other.q, own.q), both(other.k, own.k), both(other.v, own.v), state.mask));
  const int64_t front = words.size(1);
  patches = patches_.finish(patches, all.narrow(1, front, patches.size(1)), m, state);
  words = words_->ends() ? Tensor() : words_->finish(words, all.narrow(1, 0, front), w, state);
}

void JointBlock::add_to(TapPoints& points) const {
  points.attention.push_back(name_);
  patches_.add_to(points);
}

SingleBlock::SingleBlock(const Builder& build, const JointOptions& o)
    : name_(build.name()), width_(o.width), heads_(o.heads), norm_(TokenNorm::modulated(build, "pre_norm", Norm::layer, o.width, o.eps)) {
  modulation_ = zeroed(build["modulation"].linear("lin", o.width, 3 * o.width));
  wide_ = glorot(build, "linear1", o.width, 3 * o.width + o.mlp_width());
  narrow_ = glorot(build, "linear2", o.width + o.mlp_width(), o.width);
  if (!o.qk_norm) return;
  q_norm_ = TokenNorm(build, "ln_q", Norm::rms, o.width / o.heads, o.eps);
  k_norm_ = TokenNorm(build, "ln_k", Norm::rms, o.width / o.heads, o.eps);
}

Tensor SingleBlock::operator()(const Tensor& x, const JointState& state) const {
  const std::vector<Tensor> m = modulation_(state.embedding).chunk(3, 1);
  const Tensor h = wide_(norm_(x, m[1], m[0]));
  const std::vector<Tensor> part = in_heads(h.narrow(2, 0, 3 * width_), heads_);
  const Tensor q = q_norm_ ? (*q_norm_)(part[0]) : part[0], k = k_norm_ ? (*k_norm_)(part[1]) : part[1];
  const Tensor attended =
      merge_heads(tapped_attention(state.taps, name_, rotated(q, state.rotary), rotated(k, state.rotary), part[2], state.mask));
  const Tensor mlp = gelu_tanh(h.narrow(2, 3 * width_, h.size(2) - 3 * width_).contiguous());
  return gated(x, m[2], narrow_(at::cat({attended, mlp}, 2)));
}

}  // namespace brume::nn
