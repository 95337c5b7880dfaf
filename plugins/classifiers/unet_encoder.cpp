// The classifier of ADM (Dhariwal & Nichol 2021, sec. 4 and app. F): the encoder of the U-Net, its middle, and a pooling of the
// 8 x 8 (or whichever) map at the end into one vector: by attention, as CLIP does (Radford et al. 2021), or by the mean.
//
//   features = pool(silu(norm(h))),   logits = W features + b
//
// Or all maps on the way are averaged, and a layer makes the features of them (spatial, spatial_v2).
//
// Blocks and weights are named as in guided-diffusion's EncoderUNetModel, so that its state dicts load as they are.
#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include <numeric>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/classifier.h"
#include "brume/nn/blocks/pooling.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/blocks/unet.h"
#include "brume/nn/ops/ops.h"

namespace brume::plugins {
namespace {

enum class Pooling { attention, adaptive, spatial, spatial_v2 };

class UnetEncoder final : public Classifier {
 public:
  struct Options : nn::UnetOptions {
    Pooling pooling = Pooling::attention;
    void declare(Fields& f) {
      nn::UnetOptions::declare(f, false);
      f.choice(
          "pooling", pooling,
          "of the last feature map: attention (as in CLIP), or adaptive = the mean; of all of them: spatial, or spatial_v2 with a norm",
          {{"attention", Pooling::attention},
           {"adaptive", Pooling::adaptive},
           {"spatial", Pooling::spatial},
           {"spatial_v2", Pooling::spatial_v2}});
    }
    bool of_all_maps() const { return pooling == Pooling::spatial || pooling == Pooling::spatial_v2; }
  };

  static void check(const Options& o, const Context& c) {
    o.check(c.input);
    const int64_t channels = o.width(o.multipliers.back());
    if (o.pooling == Pooling::attention && !o.heads_fit(channels, o.multipliers.size() - 1))
      throw ConfigError(fmt::format("pooling: {} cannot be split into equal heads", counted(channels, "channel")));
  }

  UnetEncoder(const Options& o, const Context& c) : checkpoint_(o.checkpoint), build_(c.seed), time_embed_(build_, o) {
    nn::UnetEncoder encoder = nn::make_unet_encoder(build_["input_blocks"], o, c.input);
    const int64_t channels = encoder.channels.back(), halvings = int64_t(o.multipliers.size()) - 1;
    stages_ = std::move(encoder.stages);
    encoder_stages_ = stages_.size();
    for (nn::Stage& stage : nn::unet_middle(build_["middle_block"], o, channels)) stages_.push_back(std::move(stage));
    const nn::Builder out = build_["out"];
    if (o.of_all_maps()) {
      const bool normed = o.pooling == Pooling::spatial_v2;
      spatial_.emplace(out, std::accumulate(encoder.channels.begin(), encoder.channels.end(), channels), normed);
      last_of_all_ = out.linear(normed ? "3" : "2", nn::SpatialPool::features, c.classes);
      return;
    }
    norm_ = out.group_norm("0", channels, o.groups);
    norm_.eps = o.norm_eps;
    if (o.pooling == Pooling::attention) {
      pool_.emplace(out["2"], channels, encoder.height * (c.input.width >> halvings),
                    o.heads_of(channels, o.multipliers.size() - 1, false));
      last_ = out["2"].conv1x1("c_proj", channels, c.classes);
    } else {
      last_ = out.conv2d("3", channels, c.classes, 1);
      if (o.zero_init) last_ = nn::zeroed(last_);
    }
  }

  NoiseQuantity quantity() const override { return time_embed_.quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }

  Output forward(const Tensor& input, const Tensor& c_noise, at::Generator* dropout) const override {
    const Tensor embedding = nn::silu(time_embed_(c_noise, input.scalar_type()));
    Output y;
    Tensor h = input;
    std::vector<Tensor> means;  // of each stage of the encoder, and of the middle
    for (size_t i = 0; i < stages_.size(); ++i) {
      h = nn::recomputed(checkpoint_ && stages_[i].keeps_values(), dropout,
                         [&stage = stages_[i], h, embedding](at::Generator* random) { return stage(h, embedding, random); });
      if (spatial_ && (i < encoder_stages_ || i + 1 == stages_.size())) means.push_back(nn::mean_pool(h));
    }
    if (spatial_) {
      y.features = (*spatial_)(at::cat(means, 1));
      y.logits = last_of_all_(y.features);
      return y;
    }
    h = norm_.silu(h);
    y.features = pool_ ? (*pool_)(h) : nn::mean_pool(h);
    y.logits = last_(y.features.unsqueeze(-1).unsqueeze(-1)).flatten(1);
    return y;
  }

 private:
  bool checkpoint_;
  nn::Builder build_;
  nn::TimestepEmbedding time_embed_;
  std::vector<nn::Stage> stages_;
  nn::GroupNorm norm_;
  size_t encoder_stages_ = 0;
  std::optional<nn::AttentionPool> pool_;
  std::optional<nn::SpatialPool> spatial_;
  nn::Conv2d last_;
  nn::Linear last_of_all_;
};

}  // namespace

void register_classifier_unet_encoder(Registry& r) {
  r.add<Classifier, UnetEncoder>("unet_encoder", "the encoder of ADM's U-Net and a pooling");
}

}  // namespace brume::plugins
