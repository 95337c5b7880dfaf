// ADM's U-Net (Dhariwal & Nichol 2021) as EDM has it (Karras et al. 2022, app. F): AdaGN, heads of 64 channels, residual
// blocks that resample, attention after the rest of the blocks at its resolutions, and between encoder and decoder whatever the
// resolution there. It differs from brume's `unet` in its groups, which are of at least 4 channels, in its heads, of which narrow levels
// have none, and in the order of its projections.
//
// Weights are named as in DhariwalUNet of NVlabs/edm, so that its state dicts load as they are.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/nn/blocks/edm_unet.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/ops/ops.h"
#include "brume/numerics/waves.h"

namespace brume::plugins {
namespace {

class DhariwalUnet final : public Network {
 public:
  struct Options : nn::EdmUnetOptions {
    int64_t head_channels = 64;
    void declare(Fields& f) {
      nn::EdmUnetOptions::declare(f);
      f.field("head_channels", head_channels, "width of a head; levels that are narrower do not attend", at_least(1));
    }
    int64_t heads(int64_t width) const { return width / head_channels; }
  };

  static void check(const Options& o, const Context& c) {
    check_condition("dhariwal_unet", {.classes = true, .image = true}, c);
    o.check(c, o.width(0));
    for (size_t level = 0; level < o.multipliers.size(); ++level) {
      const bool attends = o.attends(c.input.height >> level) || level + 1 == o.multipliers.size();
      const int64_t width = o.width(level), heads = o.heads(width);
      if (attends && heads > 0 && width % heads)
        throw ConfigError(fmt::format("head_channels: {} cannot be split into {} equal heads", counted(width, "channel"), heads));
    }
  }

  DhariwalUnet(const Options& o, const Context& c) : o_(o), build_(c.seed), image_channels_(c.image_channels) {
    style_ = {.embedding = o.embedding(), .zero_init = o.zero_init, .dropout = o.dropout};
    frequencies_ = nn::positional_frequencies(o.channels, false);
    layers_[0] = build_.linear("map_layer0", o.channels, o.embedding());
    layers_[1] = build_.linear("map_layer1", o.embedding(), o.embedding());
    if (c.classes > 0) {
      label_ = nn::LabelMap(build_, c.classes, o.null_is_zero, o.embedding(), false);
      label_.layer().weight.copy_(at::randn(label_.layer().weight.sizes(), build_.random(), label_.layer().weight.options()));
    }
    std::vector<int64_t> skips = make_encoder(c.input.channels + c.image_channels, c.input.height);
    make_decoder(std::move(skips), c.input.height);
    out_norm_ = nn::edm_norm(build_, "out_norm", o.width(0), style_.eps);
    out_conv_ = build_.conv2d("out_conv", o.width(0), c.out_channels, 3);
    if (o.zero_init) out_conv_ = nn::zeroed(out_conv_);
  }

  NoiseQuantity quantity() const override { return o_.quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t multiple() const override { return int64_t(1) << (o_.multipliers.size() - 1); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout,
                 const Taps&) const override {
    const Tensor embedding = embed(c_noise, condition, input.scalar_type());
    Tensor h = first_(nn::concat_image(input, condition, image_channels_));
    std::vector<Tensor> skips{h};
    for (const nn::EdmBlock& block : down_) skips.push_back(h = checkpointed(block, h, {}, embedding, dropout));
    for (const Up& stage : up_) {
      const Tensor skip = stage.joins ? skips.back() : Tensor();
      if (stage.joins) skips.pop_back();
      h = checkpointed(stage.block, h, skip, embedding, dropout);
    }
    return out_conv_(out_norm_.silu(h));
  }

 private:
  struct Up {
    nn::EdmBlock block;
    bool joins;  ///< a feature map of the encoder is concatenated with its input
  };

  Tensor checkpointed(const nn::EdmBlock& block, const Tensor& h, const Tensor& skip, const Tensor& embedding,
                      at::Generator* dropout) const {
    return nn::recomputed(o_.checkpoint && &block != &up_.back().block, dropout, [=, &block](at::Generator* random) {
      return block(skip.defined() ? nn::concat(h, skip) : h, embedding, random);
    });
  }

  Tensor embed(const Tensor& c_noise, const Condition& condition, at::ScalarType dtype) const {
    const auto [cosines, sines] = cos_sin(o_.label(c_noise).unsqueeze(1) * frequencies_.to(c_noise.device()).unsqueeze(0));
    Tensor embedding = layers_[1](nn::silu(layers_[0](at::cat({cosines, sines}, 1).to(dtype))));
    if (label_.defined()) embedding = embedding + label_(condition, 1, dtype);
    return nn::silu(embedding);
  }

  int64_t heads_at(int64_t height, int64_t width) const { return o_.attends(height) ? o_.heads(width) : 0; }

  /// Returns the channels of the decoder's input.
  std::vector<int64_t> make_encoder(int64_t in, int64_t height) {
    const nn::Builder enc = build_["enc"];
    int64_t channels = o_.width(0);
    first_ = enc.conv2d(nn::place_name(height, "conv"), in, channels, 3);
    std::vector<int64_t> skips{channels};
    for (size_t level = 0; level < o_.multipliers.size(); ++level, height /= 2) {
      const auto next = [&](const std::string& what, const nn::EdmBlockShape& shape) {
        down_.emplace_back(enc[nn::place_name(height, what)], style_, shape);
        skips.push_back(channels = shape.out);
      };
      if (level > 0) next("down", {channels, channels, nn::Resample::down});
      const int64_t out = o_.width(level);
      for (int64_t i = 0; i < o_.blocks; ++i) next("block" + std::to_string(i), {channels, out, nn::Resample::none, heads_at(height, out)});
    }
    return skips;
  }

  void make_decoder(std::vector<int64_t> skips, int64_t whole) {
    const nn::Builder dec = build_["dec"];
    int64_t channels = skips.back();
    const size_t lowest = o_.multipliers.size() - 1;
    for (size_t level = lowest + 1; level-- > 0;) {
      const int64_t height = whole >> level, out = o_.width(level);
      const auto next = [&](const std::string& what, const nn::EdmBlockShape& shape, bool joins) {
        up_.push_back({nn::EdmBlock(dec[nn::place_name(height, what)], style_, shape), joins});
      };
      if (level == lowest) {
        next("in0", {channels, channels, nn::Resample::none, o_.heads(channels)}, false);
        next("in1", {channels, channels}, false);
      } else {
        next("up", {channels, channels, nn::Resample::up}, false);
      }
      for (int64_t i = 0; i <= o_.blocks; ++i) {
        next("block" + std::to_string(i), {channels + skips.back(), out, nn::Resample::none, heads_at(height, out)}, true);
        skips.pop_back();
        channels = out;
      }
    }
  }

  Options o_;
  nn::Builder build_;
  int64_t image_channels_;
  nn::EdmBlockStyle style_;
  Tensor frequencies_;
  nn::LabelMap label_;
  nn::Linear layers_[2];
  nn::Conv2d first_, out_conv_;
  std::vector<nn::EdmBlock> down_;
  std::vector<Up> up_;
  nn::GroupNorm out_norm_;
};

}  // namespace

void register_network_dhariwal_unet(Registry& r) { r.add<Network, DhariwalUnet>("dhariwal_unet", "ADM's U-Net as EDM has it"); }

}  // namespace brume::plugins
