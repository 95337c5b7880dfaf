#include "brume/nn/blocks/unet.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {

void UnetTransformer::declare(Fields& f) {
  f.field("depth", depth, "transformer blocks in each: one number for all levels, or one per level", at_least(1));
  f.choice("projection", projection, "projection into and out of the blocks: a 1x1 convolution (SD 1), or a linear layer (SD 2)",
           {{"conv", Projection::conv}, {"linear", Projection::linear}});
  f.field("dropout", dropout, "dropout of what attention and feed-forward add", within(0, 0.999));
  f.field("only_cross_attention", only_cross_attention,
          "levels, 0 the image's, whose blocks attend to the tokens twice and not to the pixels (SD x4 upscaler)", at_least(0));
}

bool UnetTransformer::only_cross(size_t level) const {
  return std::find(only_cross_attention.begin(), only_cross_attention.end(), int64_t(level)) != only_cross_attention.end();
}

namespace {

/// Throws ConfigError unless every level has a whole number of channels, which the groups divide.
void require_channels(Fields& f, const UnetOptions& o) {
  f.require(o.channels % 2 == 0, "channels", "must be even (cosines and sines)");
  std::string fraction, remainder;
  for (const double m : o.multipliers) {
    const std::string level = fmt::format("{} x {}", o.channels, m);
    if (fraction.empty() && std::abs(double(o.width(m)) - double(o.channels) * m) > 1e-6) fraction = level;
    if (remainder.empty() && o.width(m) % o.groups) remainder = level;
  }
  f.require(fraction.empty(), "multipliers", "must give each level a whole number of channels",
            fmt::format("{} is not a whole number of channels", fraction));
  f.require(remainder.empty(), "groups", "must divide the channels of every level",
            fmt::format("{} do not divide {}", counted(o.groups, "group"), counted(remainder, "channel")));
}

/// Throws ConfigError unless what has one value per level has as many.
void require_levels(Fields& f, const UnetOptions& o, bool decoder) {
  f.require(!o.multipliers.empty() && o.multipliers.size() <= 16, "multipliers", "needs 1 to 16 levels");
  f.require(o.heads_per_level.empty() || o.heads_per_level.size() == o.multipliers.size(), "heads_per_level", "needs one number per level");
  f.require(o.heads_per_level.empty() || !o.head_channels, "heads_per_level", "give heads_per_level or head_channels, not both");
  if (decoder)
    f.require(o.heads_per_level.empty() || o.transformer || o.attention_order == QkvOrder::qkv_first, "heads_per_level",
              "needs attention_order: new, or a transformer");
  if (decoder)
    f.require(!o.transformer || o.transformer->depth.size() == 1 || o.transformer->depth.size() == o.multipliers.size(), "transformer",
              "depth needs one number, or one per level");
  if (decoder && o.transformer)
    for (const int64_t level : o.transformer->only_cross_attention)
      f.require(level < int64_t(o.multipliers.size()), "transformer",
                fmt::format("only_cross_attention names level {}, and the levels are 0 to {}", level, o.multipliers.size() - 1));
}

}  // namespace

void UnetOptions::declare(Fields& f, bool decoder) {
  f.field("channels", channels, "channels of the first level", at_least(1));
  f.field("multipliers", multipliers, "channels of each level, as multiples (ADM at 512: 0.5 first); one halving fewer than levels",
          more_than(0));
  f.field("blocks", blocks, "residual blocks per level", at_least(1));
  f.field("attention_resolutions", attention_resolutions, "heights of the feature maps that get self-attention", at_least(1));
  f.field("middle_attention", middle_attention, "self-attention between the two middle blocks");
  f.field("heads", heads, "attention heads", at_least(1));
  if (decoder) {
    f.renamed("heads_up", "decoder_heads");
    f.field("decoder_heads", decoder_heads, "attention heads of the decoder; null = heads", at_least(1));
  }
  f.field("head_channels", head_channels,
          fmt::format("channels per attention head; if given, {} ignored", decoder ? "heads and decoder_heads are" : "heads is"),
          at_least(1));
  f.field("heads_per_level", heads_per_level, "attention heads of each level, instead of one number for all; empty = heads", at_least(1));
  f.choice("attention_order", attention_order, "order of the projected channels: legacy = heads first, new = q, k, v first",
           {{"legacy", QkvOrder::heads_first}, {"new", QkvOrder::qkv_first}});
  f.field("scale_shift", scale_shift, "AdaGN: the embedding scales and shifts the norm; else it is added");
  f.choice("resampling", resampling, "between levels: a strided convolution, plain pooling and nearest, or residual blocks (BigGAN)",
           {{"conv", Resampling::conv}, {"pool", Resampling::pool}, {"residual", Resampling::residual}});
  f.field("dropout", dropout, "dropout within the residual blocks", within(0, 0.999));
  f.field("groups", groups, "groups of the group norms; they must divide every level's channels", at_least(1));
  f.field("norm_eps", norm_eps, "epsilon of the group norms (1e-6 in the models of DDPM's authors); spatial transformers have their own",
          more_than(0));
  f.choice("downsample_padding", pad_below,
           "padding of strided convolutions: one pixel all around, or below and to the right only (the models of DDPM's authors)",
           {{"around", false}, {"below", true}});
  f.field("zero_init", zero_init, "each block begins as the identity, the network as zero");
  declare_checkpoint(f, checkpoint);
  if (decoder)
    f.section("transformer", transformer,
              "spatial transformers (LDM, Stable Diffusion) instead of plain attention; they attend to the condition's tokens");
  f.field("noise_embedding", noise_embedding, "embedding of the noise level", "sinusoidal");
  if (decoder) {
    f.choice("class_embedding", class_embedding,
             "of a class-conditional network: one row per class, or the class as a number, embedded as the noise level is",
             {{"table", ClassEmbedding::table}, {"sinusoidal", ClassEmbedding::sinusoidal}});
    f.field("size_channels", size_channels, "width of the embedding of each size, of a condition with sizes (SDXL)", at_least(2));
    f.field("guidance_channels", guidance_channels, "width of the embedding of the guidance scale, of a condition with one (LCM)",
            at_least(4));
    for (const auto& [name, width] : {std::pair("size_channels", size_channels), std::pair("guidance_channels", guidance_channels)})
      f.require(width % 2 == 0, name, "must be even (cosines and sines)");
    f.require(class_embedding == ClassEmbedding::table || !noise_embedding || !noise_embedding->random(), "class_embedding",
              "needs a noise_embedding of type sinusoidal, whose frequencies it shares");
  }
  require_levels(f, *this, decoder);
  require_channels(f, *this);
}

void UnetOptions::check(const ImageShape& input, bool decoder) const {
  const int64_t halvings = int64_t(multipliers.size()) - 1, divisor = int64_t(1) << halvings;
  const auto nearest = [&](int64_t side) { return std::max<int64_t>(1, (side + divisor / 2) / divisor) * divisor; };
  if (!(decoder && any_sides()) && (input.height % divisor || input.width % divisor))
    throw ConfigError(fmt::format("multipliers: {} halve the image {} times, and {}x{} is not divisible by {}; {}x{} is",
                                  counted(multipliers.size(), "level"), halvings, input.height, input.width, divisor, nearest(input.height),
                                  nearest(input.width)));
  std::vector<int64_t> heights{input.height};
  for (int64_t i = 0; i < halvings; ++i) heights.push_back((heights.back() + 1) / 2);
  for (const int64_t r : attention_resolutions)
    if (std::find(heights.begin(), heights.end(), r) == heights.end())
      throw ConfigError(fmt::format("attention_resolutions: no level has height {}; the levels have {}", r, fmt::join(heights, ", ")));
  for (size_t i = 0; i < heights.size(); ++i) {
    const bool middle = middle_attention && i + 1 == heights.size();
    if ((middle || attends(heights[i])) && !heads_fit(width(multipliers[i]), i))
      throw ConfigError(fmt::format("heads: {} cannot be split into equal heads", counted(width(multipliers[i]), "channel")));
  }
}

bool UnetOptions::attends(int64_t height) const {
  return std::find(attention_resolutions.begin(), attention_resolutions.end(), height) != attention_resolutions.end();
}

bool UnetOptions::heads_fit(int64_t width, size_t level) const {
  if (!heads_per_level.empty()) return width % heads_per_level[level] == 0;
  return head_channels ? width % *head_channels == 0 : width % heads == 0 && width % decoder_heads.value_or(heads) == 0;
}

int64_t UnetOptions::heads_of(int64_t width, size_t level, bool decoder) const {
  if (!heads_per_level.empty()) return heads_per_level[level];
  return head_channels ? width / *head_channels : decoder ? decoder_heads.value_or(heads) : heads;
}

Tensor Stage::operator()(Tensor h, const Tensor& embedding, at::Generator* dropout, const Tokens& tokens, const Taps* taps,
                         const Tensor* next) const {
  int64_t module = first;
  const auto apply = [&](const auto& run) {
    const int64_t index = module++;
    h = taps ? taps->apply(fmt::format("{}.{}", name, index), h, [&, in = h] { return run(in); }) : run(std::move(h));
  };
  if (conv) apply([&](const Tensor& in) { return (*conv)(in); });
  if (block) apply([&](const Tensor& in) { return (*block)(in, embedding, dropout); });
  if (attention) apply([&](Tensor in) { return (*attention)(std::move(in), taps); });
  if (transformer) apply([&](Tensor in) { return (*transformer)(std::move(in), tokens, dropout, taps); });
  if (resample) apply([&](const Tensor& in) { return (*resample)(in, embedding, dropout); });
  if (pool == Resample::none && !pool_conv) return h;
  apply([&](Tensor in) {
    if (pool == Resample::up) in = next ? upsample(in, next->size(2), next->size(3)) : upsample(in);
    if (pool == Resample::down) in = downsample(in);
    if (pad_below) in = at::constant_pad_nd(in, {0, 1, 0, 1});
    return pool_conv ? (*pool_conv)(in) : in;
  });
  return h;
}

void Stage::add_to(TapPoints& points) const {
  int64_t module = first;
  const auto next = [&](bool keeps_shape) {
    points.blocks.push_back(fmt::format("{}.{}", name, module++));
    if (keeps_shape) points.skippable.push_back(points.blocks.back());
  };
  if (conv) next(false);
  if (block) next(keeps_shape);
  if (attends()) next(true);
  if (attention) points.attention.push_back(points.blocks.back());
  if (transformer) transformer->add_to(points);
  if (resample || pool != Resample::none || pool_conv) next(false);
}

TimestepEmbedding::TimestepEmbedding(const Builder& build, const UnetOptions& o, const char* name) : noise_(o.noise_embedding) {
  frequencies_ = noise_->frequencies(o.channels, build.random());
  if (noise_->random()) frequencies_ = build.buffer("noise_frequencies", frequencies_);
  layers_[0] = build[name].linear("0", o.channels, o.embedding());
  layers_[1] = build[name].linear("2", o.embedding(), o.embedding());
}

Tensor TimestepEmbedding::operator()(const Tensor& numbers, at::ScalarType dtype, const Tensor& added) const {
  const Tensor features = noise_->features(numbers, frequencies_.to(numbers.device(), at::kFloat)).to(dtype);
  return layers_[1](silu(layers_[0](added.defined() ? features + added : features)));
}

VectorEmbedding::VectorEmbedding(const Builder& build, const UnetOptions& o, int64_t vector_width, int64_t size_ids)
    : noise_(o.noise_embedding), vector_width_(vector_width), size_ids_(size_ids) {
  if (size_ids > 0) frequencies_ = noise_->frequencies(o.size_channels, build.random());
  const Builder here = build["label_emb"][0];
  layers_[0] = here.linear("0", vector_width + size_ids * o.size_channels, o.embedding());
  layers_[1] = here.linear("2", o.embedding(), o.embedding());
}

Tensor VectorEmbedding::operator()(const Condition& c, at::ScalarType dtype) const {
  std::vector<Tensor> parts;
  if (vector_width_ > 0) {
    if (!c.vector.defined()) throw std::logic_error("a U-Net that takes a pooled vector was given none");
    parts.push_back(c.vector.to(dtype));
  }
  if (size_ids_ > 0) {
    if (!c.sizes.defined()) throw std::logic_error("a U-Net that takes the sizes of images was given none");
    const Tensor numbers = c.sizes.reshape({-1}).to(at::kFloat);
    parts.push_back(noise_->features(numbers, frequencies_.to(numbers.device(), at::kFloat)).view({c.sizes.size(0), -1}).to(dtype));
  }
  return layers_[1](silu(layers_[0](parts.size() == 1 ? parts[0] : at::cat(parts, 1))));
}

namespace {
ResBlock residual(const Builder& build, const UnetOptions& o, int64_t in, int64_t out, Resample resample = Resample::none) {
  return ResBlock(build, {in, out, o.embedding(), o.scale_shift, resample, o.dropout, o.groups, o.zero_init, o.norm_eps});
}
}  // namespace

void unet_block(Stage& stage, const Builder& build, const UnetOptions& o, int64_t in, int64_t out) {
  stage.block = residual(build, o, in, out);
  stage.keeps_shape = in == out;
}

void unet_attention(Stage& stage, const Builder& build, const UnetOptions& o, const AttentionPlace& p) {
  const int64_t heads = o.heads_of(p.channels, p.level, p.decoder);
  if (const auto& t = o.transformer) {
    const int64_t depth = t->depth_at(p.level);
    stage.transformer.emplace(build, TransformerOptions{p.channels, p.context, heads, depth, o.groups, t->projection, t->dropout,
                                                        o.zero_init, p.context > 0 && !p.middle && t->only_cross(p.level)});
  } else {
    stage.attention.emplace(build, p.channels, heads, o.attention_order, o.groups, o.zero_init, o.norm_eps);
  }
}

void unet_resample(Stage& stage, const Builder& build, const UnetOptions& o, int64_t channels, Resample way) {
  const bool up = way == Resample::up;
  if (o.resampling == Resampling::residual) {
    stage.resample = residual(build, o, channels, channels, way);
  } else if (o.resampling == Resampling::conv) {
    if (up) stage.pool = way;
    stage.pool_conv = up ? build.conv2d("conv", channels, channels, 3) : build.conv2d("op", channels, channels, 3, 2);
    stage.pad_below = !up && o.pad_below;
    if (stage.pad_below) stage.pool_conv->padding = 0;
  } else {
    stage.pool = way;
  }
}

UnetEncoder make_unet_encoder(const Builder& build, const UnetOptions& o, const ImageShape& input, int64_t context) {
  UnetEncoder encoder;
  encoder.height = input.height;
  int64_t channels = o.width(o.multipliers.front());
  const auto next = [&](const auto& fill) {
    const Builder here = build[int64_t(encoder.stages.size())];
    Stage& stage = encoder.stages.emplace_back();
    stage.name = here.name();
    fill(stage, here);
    encoder.channels.push_back(channels);
  };
  next([&](Stage& stage, const Builder& here) { stage.conv = here.conv2d("0", input.channels, channels, 3); });
  for (size_t level = 0; level < o.multipliers.size(); ++level) {
    for (int64_t i = 0; i < o.blocks; ++i)
      next([&](Stage& stage, const Builder& here) {
        const int64_t out = o.width(o.multipliers[level]);
        unet_block(stage, here[0], o, channels, out);
        channels = out;
        if (o.attends(encoder.height)) unet_attention(stage, here[1], o, {channels, level, false, context});
      });
    encoder.heights.push_back(encoder.height);
    if (level + 1 == o.multipliers.size()) break;
    next([&](Stage& stage, const Builder& here) { unet_resample(stage, here[0], o, channels, Resample::down); });
    encoder.height = (encoder.height + 1) / 2;
  }
  return encoder;
}

std::vector<Stage> unet_middle(const Builder& build, const UnetOptions& o, int64_t channels, int64_t context) {
  std::vector<Stage> middle(2);
  middle[0].name = middle[1].name = build.name();
  middle[1].first = o.middle_attention ? 2 : 1;
  unet_block(middle[0], build[0], o, channels, channels);
  if (o.middle_attention) unet_attention(middle[0], build[1], o, {channels, o.multipliers.size() - 1, false, context, true});
  unet_block(middle[1], build[middle[1].first], o, channels, channels);
  return middle;
}

UnetDecoder make_unet_decoder(const Builder& build, const UnetOptions& o, const UnetEncoder& encoder, int64_t context) {
  UnetDecoder decoder;
  std::vector<int64_t> skips = encoder.channels;
  decoder.channels = skips.back();
  for (size_t level = o.multipliers.size(); level-- > 0;) {
    const int64_t out = o.width(o.multipliers[level]);
    for (int64_t i = 0; i <= o.blocks; ++i) {
      const Builder here = build[int64_t(decoder.stages.size())];
      Stage& stage = decoder.stages.emplace_back();
      stage.name = here.name();
      unet_block(stage, here[0], o, decoder.channels + skips.back(), out);
      skips.pop_back();
      decoder.channels = out;
      if (o.attends(encoder.heights[level])) unet_attention(stage, here[1], o, {out, level, true, context});
      if (level > 0 && i == o.blocks) unet_resample(stage, here[stage.attends() ? 2 : 1], o, out, Resample::up);
    }
  }
  return decoder;
}

}  // namespace brume::nn
