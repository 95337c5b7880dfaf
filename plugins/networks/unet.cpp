// The U-Net of DDPM (Ho et al. 2020, app. B) with the options of Improved DDPM (Nichol & Dhariwal 2021) and ADM (Dhariwal &
// Nichol 2021, sec. 3): AdaGN, BigGAN-style up and down blocks, attention at chosen resolutions, heads by count or by width.
//
// Blocks and weights are named as in guided-diffusion's UNetModel, so that its state dicts load as they are.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "config/registry.h"
#include "core/network.h"
#include "nn/attention.h"
#include "nn/ops.h"
#include "nn/resblock.h"

namespace brume::plugins {
namespace {

enum class Resampling { conv, pool, residual };

struct UnetOptions {
  int64_t channels = 64;
  std::vector<int64_t> multipliers{1, 2, 2};
  int64_t blocks = 2;
  std::vector<int64_t> attention_resolutions{};
  bool middle_attention = true;
  int64_t heads = 1;
  std::optional<int64_t> heads_up, head_channels;
  nn::QkvOrder attention_order = nn::QkvOrder::heads_first;
  bool scale_shift = true, zero_init = true;
  Resampling resampling = Resampling::conv;
  double dropout = 0;
  int64_t groups = 32;
  std::shared_ptr<const NoiseEmbedding> noise_embedding;

  void declare(Fields& f) {
    f.field("channels", channels, "channels of the first level", at_least(1));
    f.field("multipliers", multipliers, "channels of each level, as multiples; one level fewer than halvings", at_least(1));
    f.field("blocks", blocks, "residual blocks a level", at_least(1));
    f.field("attention_resolutions", attention_resolutions, "heights of the feature maps that get self-attention", at_least(1));
    f.field("middle_attention", middle_attention, "self-attention between the two middle blocks");
    f.field("heads", heads, "attention heads", at_least(1));
    f.field("heads_up", heads_up, "attention heads on the way up; null = heads", at_least(1));
    f.field("head_channels", head_channels, "width of a head; sets the number of heads instead of the two above", at_least(1));
    f.choice("attention_order", attention_order, "order of the projected channels: legacy = heads first, new = q, k, v first",
             {{"legacy", nn::QkvOrder::heads_first}, {"new", nn::QkvOrder::qkv_first}});
    f.field("scale_shift", scale_shift, "AdaGN: the embedding scales and shifts the norm; else it is added");
    f.choice("resampling", resampling, "between levels: a strided convolution, plain pooling and nearest, or residual blocks (BigGAN)",
             {{"conv", Resampling::conv}, {"pool", Resampling::pool}, {"residual", Resampling::residual}});
    f.field("dropout", dropout, "within the residual blocks", within(0, 0.999));
    f.field("groups", groups, "of the group norms; must divide every level's channels", at_least(1));
    f.field("zero_init", zero_init, "each block begins as the identity, the network as zero");
    f.field("noise_embedding", noise_embedding, "how the network is told the noise level", "sinusoidal");
    f.require(!multipliers.empty(), "multipliers", "needs at least one level");
    f.require(channels % 2 == 0, "channels", "must be even (cosines and sines)");
    for (const int64_t m : multipliers)
      f.require(channels * m % groups == 0, "groups", fmt::format("{} groups do not divide {} x {} channels", groups, channels, m));
    for (const int64_t m : multipliers)
      f.require(heads_fit(channels * m), "heads", fmt::format("{} channels cannot be split into equal heads", channels * m));
  }
  bool heads_fit(int64_t width) const {
    return head_channels ? width % *head_channels == 0 : width % heads == 0 && width % heads_up.value_or(heads) == 0;
  }
  int64_t heads_of(int64_t width, bool up) const { return head_channels ? width / *head_channels : up ? heads_up.value_or(heads) : heads; }
};

/// One entry of input_blocks or output_blocks: what is there is applied in this order.
struct Stage {
  std::optional<nn::Conv2d> conv;
  std::optional<nn::ResBlock> block;
  std::optional<nn::AttentionBlock> attention;
  std::optional<nn::ResBlock> resample;
  nn::Resample pool = nn::Resample::none;  ///< before pool_conv
  std::optional<nn::Conv2d> pool_conv;

  Tensor operator()(Tensor h, const Tensor& embedding, at::Generator* dropout) const {
    if (conv) h = (*conv)(h);
    if (block) h = (*block)(h, embedding, dropout);
    if (attention) h = (*attention)(h);
    if (resample) h = (*resample)(h, embedding, dropout);
    if (pool == nn::Resample::up) h = nn::upsample(h);
    if (pool == nn::Resample::down) h = nn::downsample(h);
    if (pool_conv) h = (*pool_conv)(h);
    return h;
  }
};

class Unet final : public Network {
 public:
  using Options = UnetOptions;

  static void check(const Options& o, const Context& c) {
    const int64_t halvings = int64_t(o.multipliers.size()) - 1, divisor = int64_t(1) << halvings;
    if (c.input.height % divisor || c.input.width % divisor)
      throw ConfigError(fmt::format("multipliers: {} levels halve the image {} times, and {}x{} is not divisible by {}", o.multipliers.size(),
                                    halvings, c.input.height, c.input.width, divisor));
    std::vector<int64_t> heights;
    for (int64_t i = 0; i <= halvings; ++i) heights.push_back(c.input.height >> i);
    for (const int64_t r : o.attention_resolutions)
      if (std::find(heights.begin(), heights.end(), r) == heights.end())
        throw ConfigError(fmt::format("attention_resolutions: no level has height {}; the levels have {}", r, fmt::join(heights, ", ")));
  }

  Unet(const Options& o, const Context& c) : o_(o), build_(c.seed) {
    const int64_t width = 4 * o.channels;
    if (o.noise_embedding->random()) frequencies_ = build_.buffer("noise_frequencies", o.noise_embedding->frequencies(o.channels, build_.random()));
    else frequencies_ = o.noise_embedding->frequencies(o.channels, build_.random());
    time_[0] = build_["time_embed"].linear("0", o.channels, width);
    time_[1] = build_["time_embed"].linear("2", width, width);
    if (c.classes > 0) label_ = build_.embedding("label_emb", c.classes, width);
    make_blocks(c, width);
  }

  NoiseQuantity quantity() const override { return o_.noise_embedding->quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout) const override {
    const Tensor features = o_.noise_embedding->features(c_noise, frequencies_.to(at::kFloat)).to(input.scalar_type());
    Tensor embedding = time_[1](nn::silu(time_[0](features)));
    if (label_.weight.defined()) {
      if (!condition.classes.defined()) throw std::logic_error("a class-conditional U-Net was given no classes");
      embedding = embedding + label_(condition.classes).to(input.scalar_type());
    }
    embedding = nn::silu(embedding);  // every block begins with this
    std::vector<Tensor> skips;
    Tensor h = input.contiguous(at::MemoryFormat::ChannelsLast);
    for (const Stage& stage : down_) skips.push_back(h = stage(h, embedding, dropout));
    for (const Stage& stage : middle_) h = stage(h, embedding, dropout);
    for (const Stage& stage : up_) {
      h = stage(at::cat({h, skips.back()}, 1), embedding, dropout);
      skips.pop_back();
    }
    return out_conv_(out_norm_.silu(h));
  }

 private:
  bool attends(int64_t height) const {
    return std::find(o_.attention_resolutions.begin(), o_.attention_resolutions.end(), height) != o_.attention_resolutions.end();
  }
  nn::ResBlock block(const nn::Builder& build, int64_t in, int64_t out, int64_t width, nn::Resample resample = nn::Resample::none) const {
    return nn::ResBlock(build, {in, out, width, o_.scale_shift, resample, o_.dropout, o_.groups, o_.zero_init});
  }
  nn::AttentionBlock attention(const nn::Builder& build, int64_t channels, bool up) const {
    return nn::AttentionBlock(build, channels, o_.heads_of(channels, up), o_.attention_order, o_.groups, o_.zero_init);
  }
  /// Changes the resolution; `build` names the place in the list of the stage's modules.
  void resample(Stage& stage, const nn::Builder& build, int64_t channels, int64_t width, nn::Resample way) const {
    const bool up = way == nn::Resample::up;
    if (o_.resampling == Resampling::residual) {
      stage.resample = block(build, channels, channels, width, way);
    } else if (o_.resampling == Resampling::conv) {
      if (up) stage.pool = way;
      stage.pool_conv = up ? build.conv2d("conv", channels, channels, 3) : build.conv2d("op", channels, channels, 3, 2);
    } else {
      stage.pool = way;
    }
  }

  void make_blocks(const Context& c, int64_t width) {
    int64_t channels = o_.channels * o_.multipliers.front(), height = c.input.height;
    const nn::Builder in = build_["input_blocks"], mid = build_["middle_block"], out = build_["output_blocks"];
    down_.emplace_back().conv = in[0].conv2d("0", c.input.channels, channels, 3);
    std::vector<int64_t> skips{channels};
    const size_t levels = o_.multipliers.size();
    for (size_t level = 0; level < levels; ++level) {
      for (int64_t i = 0; i < o_.blocks; ++i) {
        const nn::Builder here = in[int64_t(down_.size())];
        Stage& stage = down_.emplace_back();
        stage.block = block(here[0], channels, o_.channels * o_.multipliers[level], width);
        channels = o_.channels * o_.multipliers[level];
        if (attends(height)) stage.attention = attention(here[1], channels, false);
        skips.push_back(channels);
      }
      if (level + 1 == levels) break;
      const nn::Builder here = in[int64_t(down_.size())];
      resample(down_.emplace_back(), here[0], channels, width, nn::Resample::down);
      skips.push_back(channels);
      height /= 2;
    }
    middle_.resize(2);
    middle_[0].block = block(mid[0], channels, channels, width);
    if (o_.middle_attention) middle_[0].attention = attention(mid[1], channels, false);
    middle_[1].block = block(mid[o_.middle_attention ? 2 : 1], channels, channels, width);
    for (size_t level = levels; level-- > 0;) {
      for (int64_t i = 0; i <= o_.blocks; ++i) {
        const nn::Builder here = out[int64_t(up_.size())];
        Stage& stage = up_.emplace_back();
        stage.block = block(here[0], channels + skips.back(), o_.channels * o_.multipliers[level], width);
        skips.pop_back();
        channels = o_.channels * o_.multipliers[level];
        if (attends(height)) stage.attention = attention(here[1], channels, true);
        if (level > 0 && i == o_.blocks) resample(stage, here[stage.attention ? 2 : 1], channels, width, nn::Resample::up);
      }
      height *= 2;
    }
    out_norm_ = build_["out"].group_norm("0", channels, o_.groups);
    out_conv_ = build_["out"].conv2d("2", channels, c.out_channels, 3);
    if (o_.zero_init) out_conv_ = nn::zeroed(out_conv_);
  }

  Options o_;
  nn::Builder build_;
  Tensor frequencies_;
  nn::Linear time_[2];
  nn::Embedding label_;
  std::vector<Stage> down_, middle_, up_;
  nn::GroupNorm out_norm_;
  nn::Conv2d out_conv_;
};

}  // namespace

void register_network_unet(Registry& r) { r.add<Network, Unet>("unet", "the U-Net of DDPM, Improved DDPM and ADM"); }

}  // namespace brume::plugins
