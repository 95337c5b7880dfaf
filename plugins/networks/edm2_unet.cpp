// The U-Net of EDM2 (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", config G): every layer keeps
// the magnitude of activations, weights count by their direction, there are no biases and no group norms.
//
//   F = out(decoder(encoder([x, 1], c)), gain),   c = mp_silu(mp_sum(noise(fourier(c_noise)), label(class)))
//   u = logvar(fourier(c_noise)), the log variance of the training loss, which the objective edm2 learns
//
// Before each training step the weights are replaced by those of unit magnitude. Weights are named as in NVlabs/edm2, within its
// preconditioning: "unet.", "logvar_fourier.", "logvar_linear.".
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/nn/blocks/edm2_block.h"
#include "brume/nn/blocks/edm_unet.h"
#include "brume/nn/blocks/recompute.h"

namespace brume::plugins {
namespace {

struct Edm2Options {
  int64_t channels = 64, blocks = 3, head_channels = 64, logvar_channels = 128;
  std::vector<int64_t> multipliers{1, 2, 3, 4}, attention_resolutions{16, 8};
  std::optional<int64_t> noise_channels, embedding_channels;
  double dropout = 0, label_balance = 0.5, concat_balance = 0.5, residual_balance = 0.3, attention_balance = 0.3, clip = 256;
  std::vector<double> resample_filter{1, 1};
  bool checkpoint = false;

  void declare(Fields& f) {
    f.field("channels", channels, "channels of the first level", within(1, 8192));
    f.field("multipliers", multipliers, "channels of each level, over `channels`", within(1, 64));
    f.field("blocks", blocks, "blocks per level of the encoder; the decoder has one more", within(1, 64));
    f.field("attention_resolutions", attention_resolutions, "heights at which there is attention", at_least(1));
    f.field("head_channels", head_channels, "channels of an attention head", at_least(1));
    f.field("noise_channels", noise_channels, "features of the noise level; null = `channels`", within(1, 65536));
    f.field("embedding_channels", embedding_channels, "channels of the embedding; null = those of the widest level", within(1, 65536));
    f.field("logvar_channels", logvar_channels, "features of the noise level for the log variance of the loss", within(1, 65536));
    f.field("dropout", dropout, "within the blocks, while training", within(0, 1));
    f.field("label_balance", label_balance, "share of the class in the embedding, over the noise level", within(0, 1));
    f.field("concat_balance", concat_balance, "share of the skip connection in what the decoder joins", within(0, 1));
    f.field("residual_balance", residual_balance, "share of the residual branch", within(0, 1));
    f.field("attention_balance", attention_balance, "share of the attention", within(0, 1));
    f.field("clip", clip, "largest magnitude of an activation; 0 = no limit", at_least(0));
    nn::declare_resample_filter(f, resample_filter);
    nn::declare_checkpoint(f, checkpoint);
    f.require(!multipliers.empty(), "multipliers", "is empty; it takes one number per level");
  }
  int64_t width(size_t level) const { return channels * multipliers[level]; }
  int64_t embedding() const { return embedding_channels.value_or(channels * *std::max_element(multipliers.begin(), multipliers.end())); }
  bool attends(int64_t height) const {
    return std::find(attention_resolutions.begin(), attention_resolutions.end(), height) != attention_resolutions.end();
  }
};

class Edm2Unet final : public Network {
 public:
  using Options = Edm2Options;

  static void check(const Options& o, const Context& c) {
    const int64_t divisor = int64_t(1) << (o.multipliers.size() - 1);
    if (c.input.height % divisor || c.input.width % divisor)
      throw ConfigError(fmt::format("multipliers: {} need a height and width that are multiples of {}; the input has {}x{}",
                                    counted(o.multipliers.size(), "level"), divisor, c.input.height, c.input.width));
    check_condition("edm2_unet", {.classes = true, .image = true}, c);
    for (size_t level = 0; level < o.multipliers.size(); ++level)
      if ((o.attends(c.input.height >> level) || level + 1 == o.multipliers.size()) && o.width(level) % o.head_channels)
        throw ConfigError(fmt::format("head_channels: {} does not divide the {} of level {}", o.head_channels,
                                      counted(o.width(level), "channel"), level));
  }

  Edm2Unet(const Options& o, const Context& c) : o_(o), build_(c.seed), image_channels_(c.image_channels) {
    const nn::Builder unet = build_["unet"];
    const int64_t noise = o.noise_channels.value_or(o.channels), embedding = o.embedding();
    fourier_ = nn::MpFourier(unet, "emb_fourier", noise);
    noise_ = nn::MpConv(unet, "emb_noise", noise, embedding, 0);
    if (c.classes > 0) class_ = nn::MpConv(unet, "emb_label", c.classes, embedding, 0);
    make_encoder(unet["enc"], c);
    make_decoder(unet["dec"], c);
    out_ = nn::MpConv(unet, "out_conv", o.width(0), c.out_channels, 3);
    gain_ = unet.normal("out_gain", {}, 1);
    if (!nn::SkipInit::now()) gain_.zero_();
    logvar_fourier_ = nn::MpFourier(build_, "logvar_fourier", o.logvar_channels);
    logvar_ = nn::MpConv(build_, "logvar_linear", o.logvar_channels, 1, 0);
  }

  NoiseQuantity quantity() const override { return NoiseQuantity::quarter_log; }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t multiple() const override { return int64_t(1) << (o_.multipliers.size() - 1); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout,
                 const Taps&) const override {
    const Tensor embedding = embed(c_noise, condition).to(input.scalar_type());
    Tensor x = nn::concat_image(input, condition, image_channels_);
    x = first_(at::cat({x, at::ones_like(x.narrow(1, 0, 1))}, 1));
    std::vector<Tensor> skips{x};
    for (const nn::Edm2Block& block : down_)
      skips.push_back(
          x = nn::recomputed(o_.checkpoint, dropout, [=, &block](at::Generator* random) { return block(x, embedding, random); }));
    for (const Up& up : up_) {
      const Tensor skip = up.joins ? skips.back() : Tensor();
      if (up.joins) skips.pop_back();
      x = nn::recomputed(o_.checkpoint && &up != &up_.back(), dropout, [=, &up, t = o_.concat_balance](at::Generator* random) {
        return up.block(skip.defined() ? nn::mp_cat(x, skip, t) : x, embedding, random);
      });
    }
    return out_(x, gain_);
  }

  Tensor log_variance(const Tensor& c_noise) const override { return logvar_(logvar_fourier_(c_noise)).reshape({-1}); }

  void normalize_weights() const override {
    for (const nn::MpConv* layer : {&noise_, &first_, &out_, &logvar_}) layer->normalize();
    if (class_) class_->normalize();
    for (const nn::Edm2Block& block : down_) block.normalize();
    for (const Up& up : up_) up.block.normalize();
  }

 private:
  struct Up {
    bool joins;
    nn::Edm2Block block;
  };
  using Resample = nn::Edm2BlockOptions::Resample;

  static std::string name_at(const Context& c, size_t level, const std::string& part) {
    return nn::place_name(c.input.height >> level, part);
  }
  nn::Edm2BlockOptions block(int64_t in, int64_t out, bool decoder, bool attends, Resample resample = Resample::keep) const {
    return {in,
            out,
            o_.embedding(),
            attends ? out / o_.head_channels : 0,
            decoder,
            resample,
            o_.dropout,
            o_.residual_balance,
            o_.attention_balance,
            o_.clip,
            nn::Filter(o_.resample_filter)};
  }

  void make_encoder(const nn::Builder& build, const Context& c) {
    int64_t width = o_.width(0);
    first_ = nn::MpConv(build, name_at(c, 0, "conv"), c.input.channels + c.image_channels + 1, width, 3);
    skips_.push_back(width);
    for (size_t level = 0; level < o_.multipliers.size(); ++level) {
      const bool attends = o_.attends(c.input.height >> level);
      const auto add = [&](const std::string& part, const nn::Edm2BlockOptions& options) {
        down_.emplace_back(build[name_at(c, level, part)], options);
        skips_.push_back(options.out);
      };
      if (level > 0) add("down", block(width, width, false, false, Resample::down));
      for (int64_t i = 0; i < o_.blocks; ++i) {
        add(fmt::format("block{}", i), block(width, o_.width(level), false, attends));
        width = o_.width(level);
      }
    }
  }

  void make_decoder(const nn::Builder& build, const Context& c) {
    const size_t last = o_.multipliers.size() - 1;
    int64_t width = o_.width(last);
    for (size_t level = last + 1; level-- > 0;) {
      const bool attends = o_.attends(c.input.height >> level);
      const auto add = [&](const std::string& part, bool joins, const nn::Edm2BlockOptions& options) {
        up_.push_back({joins, nn::Edm2Block(build[name_at(c, level, part)], options)});
      };
      if (level == last) {
        add("in0", false, block(width, width, true, true));
        add("in1", false, block(width, width, true, false));
      } else {
        add("up", false, block(width, width, true, false, Resample::up));
      }
      for (int64_t i = 0; i <= o_.blocks; ++i) {
        const int64_t in = width + skips_.back();
        skips_.pop_back();
        width = o_.width(level);
        add(fmt::format("block{}", i), true, block(in, width, true, attends));
      }
    }
  }

  /// Returns [B, embedding] float32, after its SiLU.
  Tensor embed(const Tensor& c_noise, const Condition& condition) const {
    Tensor c = noise_(fourier_(c_noise));
    if (class_) {
      if (!condition.classes.defined()) throw std::logic_error("a class-conditional edm2_unet was given no classes");
      // The row of a one-hot vector of magnitude 1.
      c = nn::mp_sum(c, class_->directions().index_select(1, condition.classes).t(), o_.label_balance);
    }
    return nn::mp_silu(c);
  }

  Options o_;
  nn::Builder build_;
  int64_t image_channels_;
  nn::MpFourier fourier_, logvar_fourier_;
  nn::MpConv noise_, first_, out_, logvar_;
  std::optional<nn::MpConv> class_;
  std::vector<int64_t> skips_;  ///< channels of the skip connections that the decoder has not joined yet
  std::vector<nn::Edm2Block> down_;
  std::vector<Up> up_;
  Tensor gain_;
};

}  // namespace

void register_network_edm2_unet(Registry& r) {
  r.add<Network, Edm2Unet>("edm2_unet", "EDM2's U-Net of layers that preserve magnitudes (Karras et al. 2024)");
}

}  // namespace brume::plugins
