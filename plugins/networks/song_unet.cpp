// DDPM++ and NCSN++ (Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations", app. H), as EDM
// has them (Karras et al. 2022, app. F): two stacks of residual blocks joined by every feature map of the encoder.
//
//   encoder   standard (DDPM++), skip: the image itself, made small, is added at each level,
//             residual (NCSN++): h = r = (h + conv(r) made small) / sqrt(2)
//   decoder   standard, or skip: every level gives an image, enlarged and added to the next one's
//   embedding positional (DDPM++), or Fourier features (NCSN++), of the noise level; class labels are added before two linear layers
//
// Attention stands, at its resolutions, after every block of the encoder that does not resample and after the last block of a level of
// the decoder; and between the two, whatever the resolution there.
// Weights are named as in SongUNet of NVlabs/edm, so that its state dicts load as they are.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>

#include <cmath>
#include <optional>

#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/nn/blocks/edm_unet.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/ops/ops.h"
#include "brume/numerics/waves.h"

namespace brume::plugins {
namespace {

enum class Encoder { standard, skip, residual };
enum class Decoder { standard, skip };
enum class Embedding { positional, fourier };

/// One feature map of the encoder.
struct Down {
  std::optional<nn::Conv2d> conv;
  std::optional<nn::EdmBlock> block;
  std::optional<nn::Conv2d> aux_skip, aux_residual;
};

/// One block of the decoder, and at the end of a level the image it gives.
struct Up {
  nn::EdmBlock block;
  bool joins;  ///< a feature map of the encoder is concatenated with its input
  std::optional<nn::GroupNorm> aux_norm{};
  nn::Conv2d aux_conv{};
};

class SongUnet final : public Network {
 public:
  struct Options : nn::EdmUnetOptions {
    Encoder encoder = Encoder::standard;
    Decoder decoder = Decoder::standard;
    Embedding embedding_type = Embedding::positional;
    int64_t noise_multiplier = 1;
    std::vector<double> resample_filter{1, 1};
    void declare(Fields& f) {
      nn::EdmUnetOptions::declare(f);
      f.choice("encoder", encoder, "further input of each level: nothing, the image, or a residual of it",
               {{"standard", Encoder::standard}, {"skip", Encoder::skip}, {"residual", Encoder::residual}});
      f.choice("decoder", decoder, "source of the output: the last level, or the sum over all levels",
               {{"standard", Decoder::standard}, {"skip", Decoder::skip}});
      f.choice("embedding_type", embedding_type,
               "embedding of the noise level: cosines and sines of geometric frequencies, or of random ones",
               {{"positional", Embedding::positional}, {"fourier", Embedding::fourier}});
      f.field("noise_multiplier", noise_multiplier, "width of those features, as a multiple (DDPM++: 1, NCSN++: 2)", at_least(1));
      nn::declare_resample_filter(f, resample_filter);
    }
    int64_t noise_channels() const { return channels * noise_multiplier; }
  };

  static void check(const Options& o, const Context& c) {
    check_condition("song_unet", {.classes = true, .image = true}, c);
    o.check(c, o.channels);
  }

  SongUnet(const Options& o, const Context& c) : o_(o), build_(c.seed), image_channels_(c.image_channels), filter_(o.resample_filter) {
    style_ = {.embedding = o.embedding(),
              .scale_shift = false,
              .project_skip = true,
              .xavier = true,
              .zero_init = o.zero_init,
              .dropout = o.dropout,
              .skip_scale = std::sqrt(0.5),
              .eps = 1e-6,
              .filter = filter_};
    if (o.embedding_type == Embedding::positional) {
      frequencies_ = nn::positional_frequencies(o.noise_channels(), true);
    } else {
      const auto normal = at::randn({o.noise_channels() / 2}, build_.random(), at::TensorOptions().dtype(at::kFloat)) * 16;
      frequencies_ = build_["map_noise"].buffer("freqs", normal);
    }
    if (c.classes > 0) {
      label_ = nn::LabelMap(build_, c.classes, o.null_is_zero, o.noise_channels(), true);
      nn::xavier(label_.layer(), true);
    }
    layers_[0] = nn::xavier(build_.linear("map_layer0", o.noise_channels(), o.embedding()), true);
    layers_[1] = nn::xavier(build_.linear("map_layer1", o.embedding(), o.embedding()), true);
    make_encoder(c.input.channels + c.image_channels, c.input.height);
    make_decoder(c.input.height, c.out_channels);
  }

  NoiseQuantity quantity() const override { return o_.quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t multiple() const override { return int64_t(1) << (o_.multipliers.size() - 1); }
  double adopted_class_scale(int64_t theirs, int64_t own) const override { return std::sqrt(double(theirs) / double(own)); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout,
                 const Taps&) const override {
    const Tensor embedding = embed(c_noise, condition, input.scalar_type());
    Tensor h = nn::concat_image(input, condition, image_channels_), aux = h;
    std::vector<Tensor> skips;
    for (const Down& stage : down_) {
      h = stage.conv ? (*stage.conv)(h) : checkpointed(*stage.block, h, {}, embedding, dropout);
      if (stage.aux_skip) {
        aux = filter_.down(aux);
        h = h + (*stage.aux_skip)(aux);
      }
      if (stage.aux_residual) h = aux = (h + filter_.down_within((*stage.aux_residual)(aux))) * std::sqrt(0.5);
      skips.push_back(h);
    }
    Tensor image;
    for (const Up& stage : up_) {
      const Tensor skip = stage.joins ? skips.back() : Tensor();
      if (stage.joins) skips.pop_back();
      h = checkpointed(stage.block, h, skip, embedding, dropout);
      if (!stage.aux_norm) continue;
      const Tensor part = stage.aux_conv(stage.aux_norm->silu(h));
      image = image.defined() ? filter_.up(image) + part : part;
    }
    return image;
  }

 private:
  Tensor checkpointed(const nn::EdmBlock& block, const Tensor& h, const Tensor& skip, const Tensor& embedding,
                      at::Generator* dropout) const {
    return nn::recomputed(o_.checkpoint && &block != &up_.back().block, dropout, [=, &block](at::Generator* random) {
      return block(skip.defined() ? nn::concat(h, skip) : h, embedding, random);
    });
  }

  Tensor embed(const Tensor& c_noise, const Condition& condition, at::ScalarType dtype) const {
    Tensor frequencies = frequencies_.to(c_noise.device(), at::kFloat);
    if (o_.embedding_type == Embedding::fourier) frequencies = frequencies * (2 * M_PI);
    const auto [cosines, sines] = cos_sin(o_.label(c_noise).unsqueeze(1) * frequencies.unsqueeze(0));
    Tensor embedding = at::cat({sines, cosines}, 1).to(dtype);
    if (label_.defined()) embedding = embedding + label_(condition, std::sqrt(double(label_.classes())), dtype);
    return nn::silu(layers_[1](nn::silu(layers_[0](embedding))));
  }

  void make_encoder(int64_t in, int64_t height) {
    const nn::Builder enc = build_["enc"];
    int64_t channels = o_.channels, aux = in;
    for (size_t level = 0; level < o_.multipliers.size(); ++level, height /= 2) {
      const auto named = [&](const std::string& what) { return nn::place_name(height, what); };
      Down& first = down_.emplace_back();
      if (level == 0) {
        first.conv = nn::xavier(enc.conv2d(named("conv"), in, channels, 3), true);
      } else {
        first.block.emplace(enc[named("down")], style_, nn::EdmBlockShape{channels, channels, nn::Resample::down});
        if (o_.encoder == Encoder::skip) first.aux_skip = nn::xavier(enc.conv2d(named("aux_skip"), aux, channels, 1), true);
        if (o_.encoder == Encoder::residual) {
          first.aux_residual = nn::xavier(enc.conv2d(named("aux_residual"), aux, channels, 3), true);
          first.aux_residual->padding += filter_.margin();
          aux = channels;
        }
      }
      for (int64_t i = 0; i < o_.blocks; ++i) {
        const nn::EdmBlockShape shape{channels, o_.width(level), nn::Resample::none, o_.attends(height)};
        down_.emplace_back().block.emplace(enc[named("block" + std::to_string(i))], style_, shape);
        channels = shape.out;
      }
    }
  }

  /// Returns the channels of the feature maps of the encoder.
  std::vector<int64_t> skips() const {
    std::vector<int64_t> all{o_.channels};
    for (size_t level = 0; level < o_.multipliers.size(); ++level) {
      if (level > 0) all.push_back(all.back());
      all.insert(all.end(), size_t(o_.blocks), o_.width(level));
    }
    return all;
  }

  void make_decoder(int64_t whole, int64_t out_channels) {
    const nn::Builder dec = build_["dec"];
    std::vector<int64_t> joined = skips();
    int64_t channels = joined.back();
    const size_t lowest = o_.multipliers.size() - 1;
    for (size_t level = lowest + 1; level-- > 0;) {
      const int64_t height = whole >> level;
      const auto named = [&](const std::string& what) { return nn::place_name(height, what); };
      if (level == lowest) {
        up_.push_back({nn::EdmBlock(dec[named("in0")], style_, {channels, channels, nn::Resample::none, 1}), false});
        up_.push_back({nn::EdmBlock(dec[named("in1")], style_, {channels, channels}), false});
      } else {
        up_.push_back({nn::EdmBlock(dec[named("up")], style_, {channels, channels, nn::Resample::up}), false});
      }
      for (int64_t i = 0; i <= o_.blocks; ++i) {
        const bool attends = i == o_.blocks && o_.attends(height);
        const nn::EdmBlockShape shape{channels + joined.back(), o_.width(level), nn::Resample::none, attends};
        joined.pop_back();
        up_.push_back({nn::EdmBlock(dec[named("block" + std::to_string(i))], style_, shape), true});
        channels = shape.out;
      }
      if (level > 0 && o_.decoder == Decoder::standard) continue;
      up_.back().aux_norm = nn::edm_norm(dec, named("aux_norm"), channels, style_.eps);
      const nn::Conv2d conv = dec.conv2d(named("aux_conv"), channels, out_channels, 3);
      up_.back().aux_conv = o_.zero_init ? nn::zeroed(conv) : nn::xavier(conv, true);
    }
  }

  Options o_;
  nn::Builder build_;
  int64_t image_channels_;
  nn::Filter filter_;
  nn::EdmBlockStyle style_;
  Tensor frequencies_;
  nn::LabelMap label_;
  nn::Linear layers_[2];
  std::vector<Down> down_;
  std::vector<Up> up_;
};

}  // namespace

void register_network_song_unet(Registry& r) { r.add<Network, SongUnet>("song_unet", "DDPM++ and NCSN++ as EDM has them"); }

}  // namespace brume::plugins
