// The classifier of ADM (Dhariwal & Nichol 2021, sec. 4 and app. F): the way down of the U-Net, its middle, and a pooling of the
// 8 x 8 (or whichever) map at the end into one vector: by attention, as CLIP does (Radford et al. 2021), or by the mean.
//
//   features = pool(silu(norm(h))),   logits = W features + b
//
// Blocks and weights are named as in guided-diffusion's EncoderUNetModel, so that its state dicts load as they are.
#include <fmt/format.h>

#include <optional>

#include "config/registry.h"
#include "core/classifier.h"
#include "nn/ops.h"
#include "nn/pooling.h"
#include "nn/unet_stages.h"

namespace brume::plugins {
namespace {

enum class Pooling { attention, adaptive };

class UnetEncoder final : public Classifier {
 public:
  struct Options : nn::UnetOptions {
    Pooling pooling = Pooling::attention;
    void declare(Fields& f) {
      nn::UnetOptions::declare(f, false);
      f.choice("pooling", pooling, "of the last feature map: attention (as in CLIP), or adaptive = the mean",
               {{"attention", Pooling::attention}, {"adaptive", Pooling::adaptive}});
    }
  };

  static void check(const Options& o, const Context& c) {
    o.check(c.input);
    const int64_t channels = o.width(o.multipliers.back());
    if (o.pooling == Pooling::attention && !o.heads_fit(channels))
      throw ConfigError(fmt::format("pooling: {} channels cannot be split into equal heads", channels));
  }

  UnetEncoder(const Options& o, const Context& c) : build_(c.seed), level_(build_, o) {
    nn::WayDown down = nn::unet_way_down(build_["input_blocks"], o, c.input);
    const int64_t channels = down.channels.back(), halvings = int64_t(o.multipliers.size()) - 1;
    stages_ = std::move(down.stages);
    for (nn::Stage& stage : nn::unet_middle(build_["middle_block"], o, channels)) stages_.push_back(std::move(stage));
    const nn::Builder out = build_["out"];
    norm_ = out.group_norm("0", channels, o.groups);
    norm_.eps = o.norm_eps;
    if (o.pooling == Pooling::attention) {
      pool_.emplace(out["2"], channels, down.height * (c.input.width >> halvings), o.heads_of(channels, false));
      last_ = out["2"].conv1x1("c_proj", channels, c.classes);
    } else {
      last_ = out.conv2d("3", channels, c.classes, 1);
      if (o.zero_init) last_ = nn::zeroed(last_);
    }
  }

  NoiseQuantity quantity() const override { return level_.quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }

  Output forward(const Tensor& input, const Tensor& c_noise, at::Generator* dropout) const override {
    const Tensor embedding = nn::silu(level_(c_noise, input.scalar_type()));
    Tensor h = input;
    for (const nn::Stage& stage : stages_) h = stage(h, embedding, dropout);
    h = norm_.silu(h);
    Output y;
    y.features = pool_ ? (*pool_)(h) : nn::mean_pool(h);
    y.logits = last_(y.features.unsqueeze(-1).unsqueeze(-1)).flatten(1);
    return y;
  }

 private:
  nn::Builder build_;
  nn::LevelEmbedding level_;
  std::vector<nn::Stage> stages_;
  nn::GroupNorm norm_;
  std::optional<nn::AttentionPool> pool_;
  nn::Conv2d last_;
};

}  // namespace

void register_classifier_unet_encoder(Registry& r) {
  r.add<Classifier, UnetEncoder>("unet_encoder", "the encoder of ADM's U-Net with attention pooling");
}

}  // namespace brume::plugins
