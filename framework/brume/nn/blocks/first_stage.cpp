#include "brume/nn/blocks/first_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/errors.h"
#include "brume/nn/blocks/latent_shape.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

GroupNorm norm(const Builder& build, const std::string& name, int64_t channels, const FirstStageOptions& o) {
  GroupNorm n = build.group_norm(name, channels, o.groups);
  n.eps = 1e-6;
  return n;
}

/// Returns a convolution of stride 2 that sees one more row and column, below and to the right only.
Tensor halve(const Tensor& x, const Conv2d& conv) { return conv(at::constant_pad_nd(x, {0, 1, 0, 1})); }

}  // namespace

void FirstStageOptions::declare(Fields& f) {
  f.field("channels", channels, "channels of the first level", at_least(1));
  f.field("multipliers", multipliers, "channels of each level, as multiples; one halving fewer than levels", at_least(1));
  f.field("blocks", blocks, "residual blocks per level of the encoder; the decoder has one more", at_least(1));
  f.field("attention_resolutions", attention_resolutions, "heights of the feature maps that get self-attention", at_least(1));
  f.field("middle_attention", middle_attention, "self-attention at the bottleneck");
  f.field("latent_channels", latent_channels, "channels of a latent", within(1, 1024));
  f.field("inner_channels", inner_channels,
          "channels between the latent's 1x1 convolutions and the encoder and decoder; null = latent_channels", within(1, 1024));
  f.field("quant_conv", quant_conv, "1x1 convolutions to the latent and from it (SD and before; not SD3 and FLUX)");
  f.field("groups", groups, "groups of the group norms; they must divide every level's channels", at_least(1));
  f.field("dropout", dropout, "dropout within the residual blocks", within(0, 0.999));
  declare_checkpoint(f, checkpoint);
  f.require(quant_conv || inner() == latent_channels, "inner_channels", "needs quant_conv, if it is not latent_channels");
  f.require(!multipliers.empty() && multipliers.size() <= 16, "multipliers", "needs 1 to 16 levels");
  f.require(std::all_of(multipliers.begin(), multipliers.end(), [&](int64_t m) { return channels * m % groups == 0; }), "groups",
            "must divide the channels of every level");
}

void FirstStageOptions::check(const ImageShape& image) const {
  latent_shape(image, latent_channels, ratio());
  std::vector<int64_t> heights;
  for (size_t i = 0; i < multipliers.size(); ++i) heights.push_back(image.height >> i);
  for (const int64_t r : attention_resolutions)
    if (std::find(heights.begin(), heights.end(), r) == heights.end())
      throw ConfigError(fmt::format("attention_resolutions: no level has height {}; the levels have {}", r, fmt::join(heights, ", ")));
}

FirstStageBlock::FirstStageBlock(const Builder& build, const FirstStageOptions& o, int64_t in, int64_t out) : dropout_(o.dropout) {
  norm1_ = norm(build, "norm1", in, o);
  conv1_ = build.conv2d("conv1", in, out, 3);
  norm2_ = norm(build, "norm2", out, o);
  conv2_ = build.conv2d("conv2", out, out, 3);
  if (in != out) shortcut_ = build.conv2d("nin_shortcut", in, out, 1);
}

Tensor FirstStageBlock::operator()(Tensor x, at::Generator* random) const {
  // One by one: what stands in one expression is kept to its end, and at the size of an image each is 64 MB or more.
  Tensor h = norm1_.silu(x);
  h = conv1_(h);
  h = norm2_.silu(h);
  h = dropout(h, dropout_, random);
  if (shortcut_.weight.defined()) x = shortcut_(x);
  return conv2_.onto(std::move(x), h);
}

FirstStageAttention::FirstStageAttention(const Builder& build, const FirstStageOptions& o, int64_t channels) {
  norm_ = norm(build, "norm", channels, o);
  q_ = build.conv2d("q", channels, channels, 1);
  k_ = build.conv2d("k", channels, channels, 1);
  v_ = build.conv2d("v", channels, channels, 1);
  out_ = build.conv2d("proj_out", channels, channels, 1);
}

Tensor FirstStageAttention::operator()(Tensor x) const {
  const int64_t b = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
  const Tensor n = norm_(x);
  const auto positions = [&](const Conv2d& projection) {  // [B, 1, H W, C]; channels last already: no copy
    return projection(n).permute({0, 2, 3, 1}).reshape({b, 1, h * w, c});
  };
  const Tensor a = attention(positions(q_), positions(k_), positions(v_));
  return out_.onto(std::move(x), a.reshape({b, h, w, c}).permute({0, 3, 1, 2}));
}

Tensor FirstStageNetwork::Step::operator()(Tensor x, at::Generator* dropout) const {
  x = block(std::move(x), dropout);
  return attention ? (*attention)(std::move(x)) : x;
}

FirstStageNetwork::FirstStageNetwork(const Builder& build, const FirstStageOptions& o, const ImageShape& image, int64_t moments) : o_(o) {
  make_encoder(build["encoder"], image, moments);
  make_decoder(build["decoder"], image);
  if (!o.quant_conv) return;
  encoder_.quant = build.conv2d("quant_conv", moments / o.latent_channels * o.inner(), moments, 1);
  decoder_.quant = build.conv2d("post_quant_conv", o.latent_channels, o.inner(), 1);
}

int64_t FirstStageOptions::decoding_memory(const ImageShape& image, at::ScalarType dtype) const {
  constexpr int64_t tensors = 3;  // of that size at once: 2.2 to 2.6 measured of Stable Diffusion, 512 and 1024 pixels, bfloat16
  int64_t widest = 0;
  for (size_t level = 0; level < multipliers.size(); ++level) {
    const int64_t before = multipliers[std::min(level + 1, multipliers.size() - 1)];  // of the level below, doubled
    widest = std::max(widest, channels * std::max(multipliers[level], before) * ((image.height * image.width) >> (2 * level)));
  }
  return tensors * widest * int64_t(at::elementSize(dtype));
}

FirstStageNetwork::Step FirstStageNetwork::make_step(const Builder& level, int64_t index, int64_t in, int64_t out, int64_t height) const {
  const auto& at = o_.attention_resolutions;
  Step step{FirstStageBlock(level["block"][index], o_, in, out), {}};
  if (std::find(at.begin(), at.end(), height) != at.end()) step.attention.emplace(level["attn"][index], o_, out);
  return step;
}

std::vector<FirstStageNetwork::Step> FirstStageNetwork::make_middle(const Builder& build, int64_t channels) const {
  std::vector<Step> middle;
  middle.push_back({FirstStageBlock(build["block_1"], o_, channels, channels), {}});
  if (o_.middle_attention) middle.back().attention.emplace(build["attn_1"], o_, channels);
  middle.push_back({FirstStageBlock(build["block_2"], o_, channels, channels), {}});
  return middle;
}

void FirstStageNetwork::make_encoder(const Builder& build, const ImageShape& image, int64_t moments) {
  encoder_.in = build.conv2d("conv_in", image.channels, o_.channels, 3);
  int64_t channels = o_.channels, height = image.height;
  for (size_t i = 0; i < o_.multipliers.size(); ++i) {
    const Builder here = build["down"][int64_t(i)];
    Level& level = encoder_.levels.emplace_back();
    for (int64_t j = 0; j < o_.blocks; ++j) {
      level.steps.push_back(make_step(here, j, channels, o_.channels * o_.multipliers[i], height));
      channels = o_.channels * o_.multipliers[i];
    }
    if (i + 1 == o_.multipliers.size()) break;
    level.resample = here["downsample"].conv2d("conv", channels, channels, 3, 2);
    level.resample.padding = 0;  // `halve` pads
    height /= 2;
  }
  encoder_.middle = make_middle(build["mid"], channels);
  encoder_.norm = norm(build, "norm_out", channels, o_);
  encoder_.out = build.conv2d("conv_out", channels, moments / o_.latent_channels * o_.inner(), 3);
}

void FirstStageNetwork::make_decoder(const Builder& build, const ImageShape& image) {
  int64_t channels = o_.channels * o_.multipliers.back(), height = image.height / o_.ratio();
  decoder_.in = build.conv2d("conv_in", o_.inner(), channels, 3);
  decoder_.middle = make_middle(build["mid"], channels);
  for (size_t i = o_.multipliers.size(); i-- > 0;) {
    const Builder here = build["up"][int64_t(i)];
    Level& level = decoder_.levels.emplace_back();
    for (int64_t j = 0; j <= o_.blocks; ++j) {
      level.steps.push_back(make_step(here, j, channels, o_.channels * o_.multipliers[i], height));
      channels = o_.channels * o_.multipliers[i];
    }
    if (i > 0) level.resample = here["upsample"].conv2d("conv", channels, channels, 3);
    height *= 2;
  }
  decoder_.norm = norm(build, "norm_out", channels, o_);
  decoder_.out = build.conv2d("conv_out", channels, image.channels, 3);
}

Tensor FirstStageNetwork::through(const std::vector<Step>& steps, Tensor h, at::Generator* dropout, const Resample& resample) const {
  const bool again = o_.checkpoint && Recomputation::possible();
  for (const Step& step : steps) {
    const bool resamples = resample && &step == &steps.back();
    if (again) {
      h = recomputed(true, dropout, [=, &step](at::Generator* random) { return resamples ? resample(step(h, random)) : step(h, random); });
    } else {
      h = step(std::move(h), dropout);
      if (resamples) h = resample(h);
    }
  }
  return h;
}

Tensor FirstStageNetwork::encode(const Tensor& images, at::Generator* dropout) const {
  Tensor h = encoder_.in(images);
  for (const Level& level : encoder_.levels) {
    const bool halves = level.resample.weight.defined();
    h = through(level.steps, std::move(h), dropout, halves ? [&level](const Tensor& x) { return halve(x, level.resample); } : Resample());
  }
  h = through(encoder_.middle, std::move(h), dropout);
  h = encoder_.out(encoder_.norm.silu(h));
  return o_.quant_conv ? encoder_.quant(h) : h;
}

Tensor FirstStageNetwork::decode(const Tensor& z, at::Generator* dropout) const {
  Tensor h = through(decoder_.middle, decoder_.in(o_.quant_conv ? decoder_.quant(z) : z), dropout);
  for (const Level& level : decoder_.levels) {
    const bool doubles = level.resample.weight.defined();
    h = through(level.steps, std::move(h), dropout,
                doubles ? [&level](const Tensor& x) { return level.resample(upsample(x)); } : Resample());
  }
  return decoder_.out(decoder_.norm.silu(h));
}

}  // namespace brume::nn
