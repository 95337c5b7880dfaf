// The U-Net of DDPM (Ho et al. 2020, app. B) with the options of Improved DDPM (Nichol & Dhariwal 2021) and ADM (Dhariwal &
// Nichol 2021, sec. 3): AdaGN, BigGAN-style up and down blocks, attention at chosen resolutions, heads by count or by width; and of
// latent diffusion (Rombach et al. 2022, sec. 3.3): spatial transformers that attend to tokens, images concatenated with the input.
//
// Blocks and weights are named as in guided-diffusion's and CompVis' UNetModel, so that their state dicts load as they are.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/blocks/unet.h"
#include "brume/nn/blocks/unet_control.h"
#include "brume/nn/ops/ops.h"
#include "brume/numerics/waves.h"

namespace brume::plugins {
namespace {

/// The scale that a guidance-distilled U-Net imitates (Meng et al. 2023, "On Distillation of Guided Diffusion Models"; Luo et al. 2023,
/// "Latent Consistency Models", sec. 4.2), "time_embed.guidance": sines and cosines of 1000 (scale - 1), projected and added to the
/// features of the noise level. It begins as zero.
class GuidanceEmbedding {
 public:
  GuidanceEmbedding(const nn::Builder& build, const nn::UnetOptions& o) {
    constexpr double max_period = 10000;
    const int64_t half = o.guidance_channels / 2;
    frequencies_ = (at::arange(half, at::kFloat) * (-std::log(max_period) / double(half - 1))).exp();
    projection_ = build["time_embed"].linear("guidance", o.guidance_channels, o.channels, false);
    if (o.zero_init) projection_ = nn::zeroed(projection_);
  }
  /// Returns [B, channels].
  Tensor operator()(const Condition& c, at::ScalarType dtype) const {
    if (!c.guidance.defined()) throw std::logic_error("a U-Net that takes a guidance scale was given none");
    constexpr double per_unit = 1000;
    const Tensor numbers = (c.guidance.to(at::kFloat) - 1) * per_unit;
    const auto [cosines, sines] = cos_sin(numbers.unsqueeze(1) * frequencies_.to(numbers.device()).unsqueeze(0));
    return projection_(at::cat({sines, cosines}, 1).to(dtype));
  }

 private:
  Tensor frequencies_;
  nn::Linear projection_;
};

class Unet final : public Network, public HasControlBranch {
 public:
  struct Options : nn::UnetOptions {
    void declare(Fields& f) { nn::UnetOptions::declare(f, true); }
  };

  static void check(const Options& o, const Context& c) {
    o.check(c.input, true);
    check_condition("unet", {.classes = true, .tokens = true, .image = true, .vector = true, .sizes = true, .guidance = true}, c);
    if (c.size_ids > 0 && o.noise_embedding->random())
      throw ConfigError(
          "noise_embedding: the sizes of the condition are embedded as the noise level is, and need fixed frequencies: sinusoidal");
    if (c.context_width == 0) {
      if (o.transformer && !o.transformer->only_cross_attention.empty())
        throw ConfigError("transformer: only_cross_attention needs tokens, and the conditioner gives none");
      return;
    }
    if (!o.transformer)
      throw ConfigError(
          fmt::format("transformer: the conditioner gives tokens of width {}, and only spatial transformers attend to "
                      "tokens; add `transformer: {{depth: [1]}}`",
                      c.context_width));
    if (o.attention_resolutions.empty() && !o.middle_attention)
      throw ConfigError("attention_resolutions: the conditioner gives tokens, and there is no attention that could see them");
  }

  Unet(const Options& o, const Context& c) : o_(o), c_(c), build_(c.seed), time_embed_(build_, o) {
    if (c.classes > 0 && o.class_embedding == nn::ClassEmbedding::sinusoidal)
      class_number_.emplace(build_, o, "label_emb");
    else if (c.classes > 0)
      label_ = build_.embedding("label_emb", c.classes, o.embedding());
    if (c.vector_width > 0 || c.size_ids > 0) vector_.emplace(build_, o, c.vector_width, c.size_ids);
    if (c.guidance) guidance_.emplace(build_, o);
    image_channels_ = c.image_channels;
    context_ = c.context_width;
    const ImageShape input{c.input.channels + c.image_channels, c.input.height, c.input.width};
    encoder_ = nn::make_unet_encoder(build_["input_blocks"], o, input, context_);
    middle_ = nn::unet_middle(build_[middle_name], o, encoder_.channels.back(), context_);
    decoder_ = nn::make_unet_decoder(build_["output_blocks"], o, encoder_, context_);
    out_norm_ = build_["out"].group_norm("0", decoder_.channels, o_.groups);
    out_norm_.eps = o_.norm_eps;
    out_conv_ = build_["out"].conv2d("2", decoder_.channels, c.out_channels, 3);
    if (o_.zero_init) out_conv_ = nn::zeroed(out_conv_);
  }

  NoiseQuantity quantity() const override { return time_embed_.quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t multiple() const override { return o_.any_sides() ? 1 : int64_t(1) << (o_.multipliers.size() - 1); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout,
                 const Taps& taps) const override {
    Tensor embedding = time_embed_(c_noise, input.scalar_type(), guidance_ ? (*guidance_)(condition, input.scalar_type()) : Tensor());
    if (class_number_ || label_.weight.defined()) embedding = embedding + of_class(condition, input.scalar_type());
    if (vector_) embedding = embedding + (*vector_)(condition, input.scalar_type());
    embedding = nn::silu(embedding);  // every block begins with this
    const nn::Tokens tokens = tokens_of(condition, input.scalar_type());
    const Taps* const hooks = taps.empty() ? nullptr : &taps;
    const auto run = [&](const nn::Stage& stage, Tensor in, const Tensor* next = nullptr) {
      return stage(std::move(in), embedding, dropout, tokens, hooks, next);
    };
    const bool again = o_.checkpoint && !hooks && nn::Recomputation::possible();
    const auto checkpointed = [&](const nn::Stage& stage, const Tensor& in, const Tensor& skip = {}, const Tensor& next = {}) {
      return nn::recomputed(stage.keeps_values(), dropout, [=, &stage](at::Generator* random) {
        return stage(skip.defined() ? nn::concat(in, skip) : in, embedding, random, tokens, nullptr, next.defined() ? &next : nullptr);
      });
    };
    std::vector<Tensor> skips;
    Tensor h = concat_image(input, condition);
    for (const nn::Stage& stage : encoder_.stages) {
      h = hooks ? hooks->apply(stage.name, h, [&] { return run(stage, h); }) : again ? checkpointed(stage, h) : run(stage, h);
      skips.push_back(hooks ? hooks->skip(stage.name, h) : h);
    }
    const auto middle = [&] {
      Tensor m = h;
      for (const nn::Stage& stage : middle_) m = again ? checkpointed(stage, m) : run(stage, m);
      return m;
    };
    h = hooks ? hooks->apply(middle_name, h, middle) : middle();
    for (const nn::Stage& stage : decoder_.stages) {
      const Tensor* const next = skips.size() > 1 ? &skips[skips.size() - 2] : nullptr;
      if (again && next) {  // not the last stage, whose values are needed at once
        h = checkpointed(stage, h, skips.back(), *next);
        skips.pop_back();
        continue;
      }
      Tensor in = nn::concat(h, skips.back());
      h = hooks ? hooks->apply(stage.name, in, [&] { return run(stage, in, next); }) : run(stage, std::move(in), next);
      skips.pop_back();
    }
    return out_conv_(out_norm_.silu(h));
  }

  std::shared_ptr<ControlBranch> control_branch(const ControlBranchOptions& control) const override {
    return std::make_shared<nn::UnetControlBranch>(o_, c_, control);
  }

  TapPoints tap_points() const override {
    TapPoints points;
    for (const nn::Stage& stage : encoder_.stages) {
      points.blocks.push_back(stage.name);
      points.skip_connections.push_back(stage.name);
      stage.add_to(points);
    }
    points.blocks.push_back(middle_name);
    points.skippable.push_back(middle_name);
    for (const nn::Stage& stage : middle_) stage.add_to(points);
    for (const nn::Stage& stage : decoder_.stages) {
      points.blocks.push_back(stage.name);
      stage.add_to(points);
    }
    return points;
  }

 private:
  static constexpr const char* middle_name = "middle_block";

  Tensor of_class(const Condition& condition, at::ScalarType dtype) const {
    if (!condition.classes.defined()) throw std::logic_error("a class-conditional U-Net was given no classes");
    return class_number_ ? (*class_number_)(condition.classes.to(at::kFloat), dtype) : label_(condition.classes).to(dtype);
  }

  nn::Tokens tokens_of(const Condition& condition, at::ScalarType dtype) const {
    if (context_ == 0) return {};
    if (!condition.context.defined()) throw std::logic_error("a U-Net that attends to tokens was given none");
    return {condition.context.to(dtype), condition.context_mask};
  }

  Tensor concat_image(const Tensor& input, const Condition& condition) const {
    if (image_channels_ == 0) return input;
    if (!condition.image.defined())
      throw std::logic_error(
          fmt::format("a U-Net that takes {} of an image with its input received none", counted(image_channels_, "channel")));
    return nn::concat(input, condition.image.to(input.scalar_type()));
  }

  Options o_;
  Context c_;
  int64_t image_channels_ = 0, context_ = 0;
  nn::Builder build_;
  nn::TimestepEmbedding time_embed_;
  nn::Embedding label_;
  std::optional<nn::TimestepEmbedding> class_number_;  ///< instead of label_: embeds the class as a number
  std::optional<nn::VectorEmbedding> vector_;
  std::optional<GuidanceEmbedding> guidance_;
  nn::UnetEncoder encoder_;
  std::vector<nn::Stage> middle_;
  nn::UnetDecoder decoder_;
  nn::GroupNorm out_norm_;
  nn::Conv2d out_conv_;
};

}  // namespace

void register_network_unet(Registry& r) { r.add<Network, Unet>("unet", "the U-Net of DDPM, Improved DDPM, ADM and latent diffusion"); }

}  // namespace brume::plugins
