#include "brume/nn/blocks/patch_discriminator.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "brume/config/errors.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

constexpr double slope = 0.2;

/// Returns a 4x4 convolution, its weights N(0, 0.02^2) as in the paper's appendix.
Conv2d conv4(const Builder& build, const std::string& name, int64_t in, int64_t out, int64_t stride, bool bias) {
  Conv2d conv = build.conv2d(name, in, out, 4, stride, bias);
  conv.padding = 1;
  const at::NoGradGuard no_grad;
  conv.weight.normal_(0, 0.02, build.random());
  if (bias) conv.bias.zero_();
  return conv;
}

/// Returns the same tensors, which gradients do not reach.
template <class Layer>
Layer detached(Layer layer) {
  layer.weight = layer.weight.detach();
  if (layer.bias.defined()) layer.bias = layer.bias.detach();
  return layer;
}

}  // namespace

ImageShape logits_shape(const ImageShape& image, int64_t layers) {
  const auto side = [](int64_t n, int64_t halvings) { return (n >> halvings) - 2; };  // two layers of stride 1 take one pixel each
  const int64_t least = std::min(image.height, image.width);
  if (side(least, layers) >= 1) return {1, side(image.height, layers), side(image.width, layers)};
  int64_t most = layers;
  while (most > 0 && side(least, most) < 1) --most;
  throw ConfigError(
      most > 0 ? fmt::format("layers = {} is too many for images of {}; {} at most", layers, image.text(), most)
               : fmt::format("images of {} are too small for a patch discriminator; the least is 6 pixels per side", image.text()));
}

PatchDiscriminator::PatchDiscriminator(const Builder& build, int64_t image_channels, const PatchDiscriminatorOptions& o) {
  layers_.push_back({conv4(build, "0", image_channels, o.channels, 2, true), {}});
  int64_t width = o.channels;
  for (int64_t i = 1; i <= o.layers; ++i) {
    const int64_t next = o.channels << std::min<int64_t>(i, 3);
    const Builder part = build[i];
    layers_.push_back({conv4(part, "conv", width, next, i < o.layers ? 2 : 1, false), part.group_norm("norm", next, std::gcd(32, next))});
    width = next;
  }
  layers_.push_back({conv4(build, std::to_string(o.layers + 1), width, 1, 1, true), {}});
}

Tensor PatchDiscriminator::operator()(const Tensor& images, bool learns) const {
  Tensor h = images;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    h = (learns ? layer.conv : detached(layer.conv))(h);
    if (layer.norm) h = (learns ? *layer.norm : detached(*layer.norm))(h);
    if (i + 1 < layers_.size()) h = leaky_relu(h, slope);
  }
  return h;
}

}  // namespace brume::nn
