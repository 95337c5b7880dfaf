#include "brume/nn/blocks/edm_unet.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/core/formed_weights.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

/// Returns the channels that group norms see, from the image down and up again.
std::vector<int64_t> norm_widths(const EdmUnetOptions& o, int64_t first) {
  std::vector<int64_t> skips{first}, seen{first};
  int64_t channels = first;
  for (size_t level = 0; level < o.multipliers.size(); ++level) {
    if (level > 0) skips.push_back(channels);
    for (int64_t i = 0; i < o.blocks; ++i) skips.push_back(channels = o.width(level));
    seen.push_back(channels);
  }
  for (size_t level = o.multipliers.size(); level-- > 0;)
    for (int64_t i = 0; i <= o.blocks; ++i) {
      seen.push_back(channels + skips.back());
      skips.pop_back();
      channels = o.width(level);
    }
  return seen;
}

}  // namespace

void EdmUnetOptions::declare(Fields& f) {
  f.field("channels", channels, "channels that the multipliers multiply", at_least(4));
  f.field("multipliers", multipliers, "channels of each level, as multiples; one halving fewer than levels", at_least(1));
  f.field("embedding_multiplier", embedding_multiplier, "width of the embedding, as a multiple", at_least(1));
  f.field("blocks", blocks, "residual blocks per level of the encoder; the decoder has one more", at_least(1));
  f.field("attention_resolutions", attention_resolutions, "heights of the feature maps that get self-attention", at_least(1));
  f.field("dropout", dropout, "dropout within the residual blocks", within(0, 0.999));
  f.choice("noise_label", noise_label, "the noise level that it receives: log(sigma) / 4, the schedule's timestep, or log(sigma / 2)",
           {{"edm", NoiseLabel::edm}, {"vp", NoiseLabel::vp}, {"ve", NoiseLabel::ve}});
  f.field("null_is_zero", null_is_zero,
          "the null class of the conditioner is the vector of zeros of EDM's label dropout, not a class with weights of its own");
  f.field("zero_init", zero_init, "each block begins as its skip connection, the network as zero");
  declare_checkpoint(f, checkpoint);
  f.require(!multipliers.empty() && multipliers.size() <= 16, "multipliers", "needs 1 to 16 levels");
  f.require(channels % 4 == 0, "channels", "must be a multiple of 4 (cosines and sines, and groups of 4 channels)");
}

void declare_resample_filter(Fields& f, std::vector<double>& taps) {
  f.field("resample_filter", taps, "filter between resolutions; [1, 1] or [1, 3, 3, 1]");
  double sum = 0;
  for (const double tap : taps) sum += tap;
  f.require(!taps.empty() && taps.size() % 2 == 0 && sum != 0, "resample_filter", "needs an even number of taps with a sum other than 0");
}

void EdmUnetOptions::check(const Network::Context& context, int64_t first) const {
  if (null_is_zero && context.classes == 1) throw ConfigError("null_is_zero: the conditioner has no class but the null class");
  const int64_t halvings = int64_t(multipliers.size()) - 1, divisor = int64_t(1) << halvings;
  if (context.input.height % divisor || context.input.width % divisor)
    throw ConfigError(fmt::format("multipliers: {} halve the image {} times, and {}x{} is not divisible by {}",
                                  counted(multipliers.size(), "level"), halvings, context.input.height, context.input.width, divisor));
  std::vector<int64_t> heights;
  for (int64_t i = 0; i <= halvings; ++i) heights.push_back(context.input.height >> i);
  for (const int64_t r : attention_resolutions)
    if (std::find(heights.begin(), heights.end(), r) == heights.end())
      throw ConfigError(fmt::format("attention_resolutions: no level has height {}; the levels have {}", r, fmt::join(heights, ", ")));
  for (const int64_t channels_seen : norm_widths(*this, first))
    if (channels_seen % edm_groups(channels_seen))
      throw ConfigError(fmt::format("channels: {} meet in one group norm and cannot be split into its {}",
                                    counted(channels_seen, "channel"), counted(edm_groups(channels_seen), "group")));
}

bool EdmUnetOptions::attends(int64_t height) const {
  return std::find(attention_resolutions.begin(), attention_resolutions.end(), height) != attention_resolutions.end();
}

NoiseQuantity EdmUnetOptions::quantity() const {
  switch (noise_label) {
    case NoiseLabel::edm: return NoiseQuantity::quarter_log;
    case NoiseLabel::vp: return NoiseQuantity::timestep;
    case NoiseLabel::ve: return NoiseQuantity::log_snr;
  }
  throw std::logic_error("unknown noise label");
}

Tensor EdmUnetOptions::label(const Tensor& c_noise) const {
  return noise_label == NoiseLabel::ve ? c_noise * -0.5 - std::log(2.0) : c_noise;  // log(sigma / 2) from -2 log(sigma)
}

Tensor positional_frequencies(int64_t width, bool endpoint) {
  const int64_t half = width / 2;
  return at::pow(1e-4, at::arange(half, at::kFloat) / double(half - (endpoint ? 1 : 0)));
}

LabelMap::LabelMap(const Builder& build, int64_t rows, bool null_is_zero, int64_t width, bool bias)
    : layer_(build.linear("map_label", rows - (null_is_zero ? 1 : 0), width, bias)) {}

Tensor LabelMap::operator()(const Condition& condition, double scale, at::ScalarType dtype) const {
  if (!condition.classes.defined()) throw std::logic_error("a class-conditional network was given no classes");
  const Tensor& ids = condition.classes;
  Tensor mapped = FormedWeights::of(layer_.weight).t().index_select(0, ids.clamp_max(classes() - 1));
  mapped = mapped * ((ids < classes()).unsqueeze(1).to(mapped.scalar_type()) * scale);
  return (layer_.bias.defined() ? mapped + layer_.bias : mapped).to(dtype);
}

Tensor concat_image(const Tensor& x, const Condition& condition, int64_t image_channels) {
  if (image_channels == 0) return x;
  if (!condition.image.defined())
    throw std::logic_error(
        fmt::format("a network that takes {} of an image with its input received none", counted(image_channels, "channel")));
  return concat(x, condition.image.to(x.scalar_type()));
}

std::string place_name(int64_t height, const std::string& what) { return fmt::format("{0}x{0}_{1}", height, what); }

}  // namespace brume::nn
