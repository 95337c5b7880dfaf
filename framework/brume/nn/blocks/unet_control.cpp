#include "brume/nn/blocks/unet_control.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

constexpr const char* middle_name = "middle_block";

/// Throws ConfigError if the control's embedding of the timestep is not the network's, which it is given.
void check_timestep(const NoiseEmbedding& embedding, const ControlBranchOptions& control) {
  at::Generator unused = at::detail::createCPUGenerator(0);
  const Tensor frequencies = embedding.frequencies(4, unused);
  const bool sin_first = embedding.features(at::zeros({1}), frequencies)[0][0].item<double>() == 0;
  if (control.sin_first && *control.sin_first != sin_first)
    throw ConfigError(fmt::format("embeds the timestep with its {} first (flip_sin_to_cos), and the model's U-Net with its {}",
                                  sin_first ? "cosines" : "sines", sin_first ? "sines" : "cosines"));
  constexpr double between = 1e-3;  // of 1e-2 and 1e-4
  const int64_t shift = frequencies[1].item<double>() < between ? 1 : 0;
  if (control.frequency_shift && *control.frequency_shift != shift)
    throw ConfigError(
        fmt::format("embeds the timestep with a freq_shift of {}, and the model's U-Net of {}", *control.frequency_shift, shift));
}

/// Returns the options of a control's encoder: the network's, but for what the control has of its own.
UnetOptions adapted(UnetOptions o, const ImageShape& input, const ControlBranchOptions& control) {
  o.middle_attention = control.middle_attention && o.middle_attention;
  o.groups = control.groups.value_or(o.groups);
  o.norm_eps = control.norm_eps.value_or(o.norm_eps);
  o.pad_below = control.pad_below.value_or(o.pad_below);
  if (!control.heads.empty()) o.heads_per_level = control.heads, o.head_channels.reset();
  if (o.noise_embedding && !o.noise_embedding->random()) check_timestep(*o.noise_embedding, control);
  if (control.only_cross_attention && o.transformer) o.transformer->only_cross_attention = *control.only_cross_attention;
  if (control.depth.empty()) return o;
  if (!o.transformer || control.depth.size() != o.multipliers.size())
    throw ConfigError(fmt::format("has {}, and the model's U-Net {}", counted(control.depth.size(), "level"), o.multipliers.size()));
  o.transformer->depth = control.depth;
  o.attention_resolutions.clear();
  int64_t height = input.height;
  for (const int64_t depth : control.depth) {
    if (depth > 0) o.attention_resolutions.push_back(height);
    height = (height + 1) / 2;
  }
  for (int64_t& depth : o.transformer->depth) depth = std::max<int64_t>(depth, 1);  // no layer is made where nothing attends
  return o;
}

}  // namespace

UnetControlBranch::UnetControlBranch(const UnetOptions& options, const Network::Context& c, const ControlBranchOptions& control)
    : global_pool_(control.global_pool), context_(c.context_width), build_(control.seed), time_embed_(build_, options) {
  const UnetOptions o = adapted(options, c.input, control);
  if (control.hint_widths.empty()) throw std::logic_error("the encoder of a hint needs channels");
  if (c.classes > 0 && o.class_embedding == ClassEmbedding::sinusoidal)
    class_number_.emplace(build_, o, "label_emb");
  else if (c.classes > 0)
    label_ = build_.embedding("label_emb", c.classes, o.embedding());
  if (c.vector_width > 0 || c.size_ids > 0) vector_.emplace(build_, o, c.vector_width, c.size_ids);
  const Builder hint = build_["input_hint_block"];
  int64_t channels = control.hint_channels, number = 0;
  const auto next = [&](int64_t out, int64_t stride) {
    hint_.push_back(hint.conv2d(std::to_string(2 * number++), channels, out, 3, stride));
    channels = out;
  };
  next(control.hint_widths.front(), 1);
  for (size_t i = 1; i < control.hint_widths.size(); ++i) {
    next(channels, 1);
    next(control.hint_widths[i], 2);
  }
  next(o.width(o.multipliers.front()), 1);
  hint_.back() = zeroed(hint_.back());
  encoder_ = make_unet_encoder(build_["input_blocks"], o, c.input, context_);
  middle_ = unet_middle(build_[middle_name], o, encoder_.channels.back(), context_);
  for (size_t i = 0; i < encoder_.channels.size(); ++i)
    zeros_.push_back(zeroed(build_["zero_convs"][int64_t(i)].conv2d("0", encoder_.channels[i], encoder_.channels[i], 1)));
  const int64_t last = encoder_.channels.back();
  zero_middle_ = zeroed(build_["middle_block_out"].conv2d("0", last, last, 1));
}

Tensor UnetControlBranch::embedding(const Tensor& c_noise, const Condition& condition, at::ScalarType dtype) const {
  Tensor e = time_embed_(c_noise, dtype);
  if (class_number_) e = e + (*class_number_)(condition.classes.to(at::kFloat), dtype);
  if (label_.weight.defined()) e = e + label_(condition.classes).to(dtype);
  if (vector_) e = e + (*vector_)(condition, dtype);
  return silu(e);
}

Tensor UnetControlBranch::encoded_hint(Tensor h) const {
  for (size_t i = 0; i < hint_.size(); ++i) h = i + 1 < hint_.size() ? silu(hint_[i](h)) : hint_[i](h);
  return h;
}

std::vector<Tensor> UnetControlBranch::residuals(const Tensor& input, const Tensor& c_noise, const Condition& condition, const Tensor& hint,
                                                 at::Generator* dropout) const {
  const at::ScalarType dtype = input.scalar_type();
  const Tensor e = embedding(c_noise, condition, dtype);
  Tokens tokens;
  if (context_ > 0) {
    if (!condition.context.defined()) throw std::logic_error("a ControlNet that attends to tokens was given none");
    tokens = {condition.context.to(dtype), condition.context_mask};
  }
  const Tensor features = encoded_hint(hint.to(dtype));
  std::vector<Tensor> all;
  const auto add = [&](const Conv2d& zero, const Tensor& h) {
    const Tensor residual = zero(h);
    all.push_back(global_pool_ ? residual.mean(at::IntArrayRef({2, 3}), true).expand_as(residual) : residual);
  };
  Tensor h = input;
  for (size_t i = 0; i < encoder_.stages.size(); ++i) {
    h = encoder_.stages[i](h, e, dropout, tokens);
    if (i == 0) h = h + features;
    add(zeros_[i], h);
  }
  for (const Stage& stage : middle_) h = stage(h, e, dropout, tokens);
  add(zero_middle_, h);
  return all;
}

std::vector<std::string> UnetControlBranch::places() const {
  std::vector<std::string> names;
  for (const Stage& stage : encoder_.stages) names.push_back(stage.name);
  names.push_back(middle_name);
  return names;
}

}  // namespace brume::nn
