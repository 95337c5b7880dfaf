#include "brume/nn/blocks/edm2_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/unbind.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numbers>

#include "brume/nn/blocks/tapped_attention.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

constexpr double eps = 1e-4;

/// Returns all dimensions but the first.
std::vector<int64_t> of_row(const Tensor& weight) {
  std::vector<int64_t> dims;
  for (int64_t i = 1; i < weight.dim(); ++i) dims.push_back(i);
  return dims;
}

}  // namespace

Tensor unit_magnitude(const Tensor& x, at::IntArrayRef dims) {
  const Tensor f = x.to(at::kFloat), norm = (f * f).sum(dims, true).sqrt();
  const double share = std::sqrt(double(norm.numel()) / double(x.numel()));
  return x / (norm * share + eps).to(x.scalar_type());
}

Tensor mp_silu(const Tensor& x) { return silu(x) / 0.596; }

Tensor mp_sum(const Tensor& a, const Tensor& b, double t) { return (a + (b - a) * t) / std::sqrt((1 - t) * (1 - t) + t * t); }

Tensor mp_cat(const Tensor& a, const Tensor& b, double t) {
  const double na = double(a.size(1)), nb = double(b.size(1)), c = std::sqrt((na + nb) / ((1 - t) * (1 - t) + t * t));
  return concat(a * (c / std::sqrt(na) * (1 - t)), b * (c / std::sqrt(nb) * t));
}

MpFourier::MpFourier(const Builder& build, const std::string& name, int64_t channels) {
  const Builder part = build[name];
  const auto options = at::TensorOptions().dtype(at::kFloat);
  frequencies_ = part.buffer("freqs", at::randn({channels}, build.random(), options) * (2 * std::numbers::pi));
  phases_ = part.buffer("phases", at::rand({channels}, build.random(), options) * (2 * std::numbers::pi));
}

Tensor MpFourier::operator()(const Tensor& x) const {
  const auto here = [&](const Tensor& t) { return t.to(x.device(), at::kFloat).unsqueeze(0); };
  return (x.to(at::kFloat).unsqueeze(1) * here(frequencies_) + here(phases_)).cos() * std::numbers::sqrt2;
}

MpConv::MpConv(const Builder& build, const std::string& name, int64_t in, int64_t out, int64_t kernel) {
  std::vector<int64_t> shape{out, in};
  if (kernel > 0) shape.insert(shape.end(), {kernel, kernel});
  weight_ = build[name].normal("weight", shape, 1);
}

Tensor MpConv::directions() const { return unit_magnitude(weight_.to(at::kFloat), of_row(weight_)); }

Tensor MpConv::operator()(const Tensor& x, const Tensor& gain) const {
  Tensor w = directions();
  const double scale = 1 / std::sqrt(double(w[0].numel()));
  w = (gain.defined() ? w * (gain.to(at::kFloat) * scale) : w * scale).to(x.scalar_type());
  return w.dim() == 2 ? linear(x, w, {}) : conv2d(x, w, {}, 1, w.size(3) / 2);
}

void MpConv::normalize() const {
  const at::NoGradGuard no_grad;
  weight_.copy_(directions());
}

Edm2Block::Edm2Block(const Builder& build, const Edm2BlockOptions& options) : o_(options) {
  gain_ = build.normal("emb_gain", {}, 1);
  if (!SkipInit::now()) gain_.zero_();
  first_ = MpConv(build, "conv_res0", o_.decoder ? o_.in : o_.out, o_.out, 3);
  emb_ = MpConv(build, "emb_linear", o_.embedding, o_.out, 0);
  second_ = MpConv(build, "conv_res1", o_.out, o_.out, 3);
  if (o_.in != o_.out) skip_ = MpConv(build, "conv_skip", o_.in, o_.out, 1);
  if (o_.heads == 0) return;
  qkv_ = MpConv(build, "attn_qkv", o_.out, 3 * o_.out, 1);
  proj_ = MpConv(build, "attn_proj", o_.out, o_.out, 1);
}

Tensor Edm2Block::attend(const Tensor& x) const {
  const int64_t b = x.size(0), pixels = x.size(2) * x.size(3);
  // [B, heads, d, 3, pixels]: the channels of a head, each as query, key and value.
  const Tensor heads = (*qkv_)(x).reshape({b, o_.heads, -1, 3, pixels});
  const std::vector<Tensor> part = at::unbind(unit_magnitude(heads, {2}), 3);
  const auto tokens = [&](size_t i) { return part[i].transpose(2, 3).contiguous(); };
  const Tensor y = attention(tokens(0), tokens(1), tokens(2)).transpose(2, 3).reshape(x.sizes());
  return mp_sum(x, (*proj_)(y), o_.attention_balance);
}

Tensor Edm2Block::operator()(Tensor x, const Tensor& embedding, at::Generator* random) const {
  if (o_.resample == Edm2BlockOptions::Resample::down) x = o_.filter.down(x);
  if (o_.resample == Edm2BlockOptions::Resample::up) x = o_.filter.up(x);
  if (!o_.decoder) {
    if (skip_) x = (*skip_)(x);
    x = unit_magnitude(x, {1});
  }
  const Tensor scale = emb_(embedding, gain_) + 1;
  Tensor y = mp_silu(first_(mp_silu(x)) * scale.unsqueeze(2).unsqueeze(3));
  y = second_(dropout(y, o_.dropout, random));
  if (o_.decoder && skip_) x = (*skip_)(x);
  x = mp_sum(x, y, o_.residual_balance);
  if (qkv_) x = attend(x);
  return o_.clip > 0 ? x.clamp(-o_.clip, o_.clip) : x;
}

void Edm2Block::normalize() const {
  for (const MpConv* layer : {&first_, &emb_, &second_}) layer->normalize();
  for (const std::optional<MpConv>* layer : {&skip_, &qkv_, &proj_})
    if (*layer) (*layer)->normalize();
}

}  // namespace brume::nn
