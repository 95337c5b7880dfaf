// The U-Net of DDPM (Ho et al. 2020, app. B) with the options of Improved DDPM (Nichol & Dhariwal 2021) and ADM (Dhariwal &
// Nichol 2021, sec. 3): AdaGN, BigGAN-style up and down blocks, attention at chosen resolutions, heads by count or by width.
//
// Blocks and weights are named as in guided-diffusion's UNetModel, so that its state dicts load as they are.
#include <ATen/TensorOperators.h>

#include "config/registry.h"
#include "core/network.h"
#include "nn/ops.h"
#include "nn/unet_stages.h"

namespace brume::plugins {
namespace {

class Unet final : public Network {
 public:
  struct Options : nn::UnetOptions {
    void declare(Fields& f) { nn::UnetOptions::declare(f, true); }
  };

  static void check(const Options& o, const Context& c) { o.check(c.input); }

  Unet(const Options& o, const Context& c) : o_(o), build_(c.seed), level_(build_, o) {
    if (c.classes > 0) label_ = build_.embedding("label_emb", c.classes, o.embedding());
    nn::WayDown down = nn::unet_way_down(build_["input_blocks"], o, c.input);
    down_ = std::move(down.stages);
    middle_ = nn::unet_middle(build_["middle_block"], o, down.channels.back());
    make_way_up(down.channels, down.height, c.out_channels);
  }

  NoiseQuantity quantity() const override { return level_.quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout) const override {
    Tensor embedding = level_(c_noise, input.scalar_type());
    if (label_.weight.defined()) {
      if (!condition.classes.defined()) throw std::logic_error("a class-conditional U-Net was given no classes");
      embedding = embedding + label_(condition.classes).to(input.scalar_type());
    }
    embedding = nn::silu(embedding);  // every block begins with this
    std::vector<Tensor> skips;
    Tensor h = input;
    for (const nn::Stage& stage : down_) skips.push_back(h = stage(h, embedding, dropout));
    for (const nn::Stage& stage : middle_) h = stage(h, embedding, dropout);
    for (const nn::Stage& stage : up_) {
      h = stage(nn::concat(h, skips.back()), embedding, dropout);
      skips.pop_back();
    }
    return out_conv_(out_norm_.silu(h));
  }

 private:
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
        if (o_.attends(height)) stage.attention = nn::unet_attention(here[1], o_, channels, true);
        if (level > 0 && i == o_.blocks) nn::unet_resample(stage, here[stage.attention ? 2 : 1], o_, channels, nn::Resample::up);
      }
      height *= 2;
    }
    out_norm_ = build_["out"].group_norm("0", channels, o_.groups);
    out_conv_ = build_["out"].conv2d("2", channels, out_channels, 3);
    if (o_.zero_init) out_conv_ = nn::zeroed(out_conv_);
  }

  Options o_;
  nn::Builder build_;
  nn::LevelEmbedding level_;
  nn::Embedding label_;
  std::vector<nn::Stage> down_, middle_, up_;
  nn::GroupNorm out_norm_;
  nn::Conv2d out_conv_;
};

}  // namespace

void register_network_unet(Registry& r) { r.add<Network, Unet>("unet", "the U-Net of DDPM, Improved DDPM and ADM"); }

}  // namespace brume::plugins
