// The U-Net of DDPM (Ho et al. 2020, app. B) with the options of Improved DDPM (Nichol & Dhariwal 2021) and ADM (Dhariwal &
// Nichol 2021, sec. 3): AdaGN, BigGAN-style up and down blocks, attention at chosen resolutions, heads by count or by width; and of
// latent diffusion (Rombach et al. 2022, sec. 3.3): spatial transformers that attend to tokens, images laid beside the input.
//
// Blocks and weights are named as in guided-diffusion's and CompVis' UNetModel, so that their state dicts load as they are.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <optional>
#include <stdexcept>

#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/nn/blocks/unet_stages.h"
#include "brume/nn/ops/ops.h"

namespace brume::plugins {
namespace {

class Unet final : public Network {
 public:
  struct Options : nn::UnetOptions {
    void declare(Fields& f) { nn::UnetOptions::declare(f, true); }
  };

  static void check(const Options& o, const Context& c) {
    o.check(c.input);
    if (c.context_width == 0) return;
    if (!o.transformer)
      throw ConfigError(
          fmt::format("transformer: the conditioner gives tokens of width {}, and only spatial transformers attend to "
                      "tokens; add `transformer: {{depth: [1]}}`",
                      c.context_width));
    if (o.attention_resolutions.empty() && !o.middle_attention)
      throw ConfigError("attention_resolutions: the conditioner gives tokens, and there is no attention that could see them");
  }

  Unet(const Options& o, const Context& c) : o_(o), build_(c.seed), level_(build_, o) {
    if (c.classes > 0 && o.class_embedding == nn::ClassEmbedding::sinusoidal)
      number_.emplace(build_, o, "label_emb");
    else if (c.classes > 0)
      label_ = build_.embedding("label_emb", c.classes, o.embedding());
    image_channels_ = c.image_channels;
    context_ = c.context_width;
    const ImageShape input{c.input.channels + c.image_channels, c.input.height, c.input.width};
    nn::UnetEncoder down = nn::make_unet_encoder(build_["input_blocks"], o, input, context_);
    down_ = std::move(down.stages);
    middle_ = nn::unet_middle(build_["middle_block"], o, down.channels.back(), context_);
    make_way_up(down.channels, down.height, c.out_channels);
  }

  NoiseQuantity quantity() const override { return level_.quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t multiple() const override { return int64_t(1) << (o_.multipliers.size() - 1); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout) const override {
    Tensor embedding = level_(c_noise, input.scalar_type());
    if (number_ || label_.weight.defined()) embedding = embedding + of_class(condition, input.scalar_type());
    embedding = nn::silu(embedding);  // every block begins with this
    const nn::Tokens tokens = tokens_of(condition, input.scalar_type());
    std::vector<Tensor> skips;
    Tensor h = beside_image(input, condition);
    for (const nn::Stage& stage : down_) skips.push_back(h = stage(h, embedding, dropout, tokens));
    for (const nn::Stage& stage : middle_) h = stage(h, embedding, dropout, tokens);
    for (const nn::Stage& stage : up_) {
      h = stage(nn::concat(h, skips.back()), embedding, dropout, tokens);
      skips.pop_back();
    }
    return out_conv_(out_norm_.silu(h));
  }

 private:
  Tensor of_class(const Condition& condition, at::ScalarType dtype) const {
    if (!condition.classes.defined()) throw std::logic_error("a class-conditional U-Net was given no classes");
    return number_ ? (*number_)(condition.classes.to(at::kFloat), dtype) : label_(condition.classes).to(dtype);
  }

  nn::Tokens tokens_of(const Condition& condition, at::ScalarType dtype) const {
    if (context_ == 0) return {};
    if (!condition.context.defined()) throw std::logic_error("a U-Net that attends to tokens was given none");
    return {condition.context.to(dtype), condition.context_mask};
  }

  Tensor beside_image(const Tensor& input, const Condition& condition) const {
    if (image_channels_ == 0) return input;
    if (!condition.image.defined())
      throw std::logic_error(fmt::format("a U-Net that takes {} channels of an image beside its input was given none", image_channels_));
    return nn::concat(input, condition.image.to(input.scalar_type()));
  }

  /// `skips`: channels of what each stage of the way down gave.
  void make_way_up(std::vector<int64_t> skips, int64_t height, int64_t out_channels) {
    int64_t channels = skips.back();
    const nn::Builder out = build_["output_blocks"];
    for (size_t level = o_.multipliers.size(); level-- > 0;) {
      for (int64_t i = 0; i <= o_.blocks; ++i) {
        const nn::Builder here = out[int64_t(up_.size())];
        nn::Stage& stage = up_.emplace_back();
        stage.block = nn::unet_block(here[0], o_, channels + skips.back(), o_.width(o_.multipliers[level]));
        skips.pop_back();
        channels = o_.width(o_.multipliers[level]);
        if (o_.attends(height)) nn::unet_attention(stage, here[1], o_, {channels, level, true, context_});
        if (level > 0 && i == o_.blocks) nn::unet_resample(stage, here[stage.attends() ? 2 : 1], o_, channels, nn::Resample::up);
      }
      height *= 2;
    }
    out_norm_ = build_["out"].group_norm("0", channels, o_.groups);
    out_norm_.eps = o_.norm_eps;
    out_conv_ = build_["out"].conv2d("2", channels, out_channels, 3);
    if (o_.zero_init) out_conv_ = nn::zeroed(out_conv_);
  }

  Options o_;
  int64_t image_channels_ = 0, context_ = 0;
  nn::Builder build_;
  nn::TimestepEmbedding level_;
  nn::Embedding label_;
  std::optional<nn::TimestepEmbedding> number_;  ///< in its place: the class as a number
  std::vector<nn::Stage> down_, middle_, up_;
  nn::GroupNorm out_norm_;
  nn::Conv2d out_conv_;
};

}  // namespace

void register_network_unet(Registry& r) { r.add<Network, Unet>("unet", "the U-Net of DDPM, Improved DDPM, ADM and latent diffusion"); }

}  // namespace brume::plugins
