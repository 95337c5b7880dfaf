#include "brume/diffusion/tiling.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/core/boundary.h"

namespace brume {
namespace {

/// A piece along one side, in latents.
struct Piece {
  int64_t begin, count;
  bool first, last;
};

/// Pieces of `tile` that overlap by a quarter of it; the last one ends with the side.
std::vector<Piece> pieces(int64_t side, int64_t tile) {
  std::vector<Piece> all;
  for (int64_t begin = 0;; begin += tile * 3 / 4) {
    const bool last = begin + tile >= side;
    const int64_t at = last ? std::max<int64_t>(0, side - tile) : begin;
    all.push_back({at, std::min(tile, side), all.empty(), last});
    if (last) return all;
  }
}

/// Returns how much each of n positions of a piece counts: nothing in the outer sixteenth at an inner edge, all after three sixteenths,
/// linear between: two pieces that overlap by a quarter add up to one.
Tensor ramp(int64_t n, const Piece& piece) {
  const Tensor weights = at::ones({n}, at::kFloat);
  float* w = weights.data_ptr<float>();
  const auto at_depth = [&](double depth) { return float(std::clamp((depth - double(n) / 16) / (double(n) / 8), 1e-6, 1.0)); };
  for (int64_t i = 0; i < n; ++i) {
    if (!piece.first) w[i] *= at_depth(double(i) + 0.5);
    if (!piece.last) w[i] *= at_depth(double(n - i) - 0.5);
  }
  return weights;
}

/// Computes the output tile by tile. `from` and `to`: how many units of the input and of the output lie in one latent.
Tensor tiled(const Tensor& input, int64_t height, int64_t width, int64_t tile, int64_t from, int64_t to, int64_t channels,
             const std::function<Tensor(const Tensor&)>& run) {
  const at::NoGradGuard no_grad;
  Tensor out, sum;
  for (const Piece& y : pieces(height, tile))
    for (const Piece& x : pieces(width, tile)) {
      const Tensor part = input.narrow(2, y.begin * from, y.count * from).narrow(3, x.begin * from, x.count * from);
      const Tensor done = run(part);
      const Tensor weight = (ramp(y.count * to, y).view({-1, 1}) * ramp(x.count * to, x).view({1, -1})).to(done.device());
      if (!out.defined()) {
        out = at::zeros({input.size(0), channels, height * to, width * to}, done.options());
        sum = at::zeros({height * to, width * to}, done.options());
      }
      out.narrow(2, y.begin * to, y.count * to).narrow(3, x.begin * to, x.count * to).add_(done * weight);
      sum.narrow(0, y.begin * to, y.count * to).narrow(1, x.begin * to, x.count * to).add_(weight);
    }
  return out.div_(sum);
}

/// Returns the side of a piece in latents, which has quarters.
int64_t side_of(const Tiling& tiling, int64_t ratio) {
  const int64_t side = tiling.tile / ratio / 4 * 4;
  if (side < 4)
    throw ConfigError(fmt::format("tile: {} are too few; {} at least, four latents per side", counted(tiling.tile, "pixel"), 4 * ratio));
  return side;
}

}  // namespace

Tensor decode_tiled(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, const Tiling& tiling) {
  const int64_t h = latents.size(2), w = latents.size(3), ratio = image.height / h, side = side_of(tiling, ratio);
  if (h <= side && w <= side) return checked_images(autoencoder, latents, image);
  return tiled(latents, h, w, side, 1, ratio, image.channels, [&](const Tensor& part) {
    return checked_images(autoencoder, part, {image.channels, part.size(2) * ratio, part.size(3) * ratio});
  });
}

Tensor encode_moments_tiled(const Autoencoder& autoencoder, const Tensor& images, const Tiling& tiling) {
  const ImageShape image{images.size(1), images.size(2), images.size(3)}, moments = autoencoder.moments(image);
  const int64_t ratio = image.height / moments.height, side = side_of(tiling, ratio);
  if (moments.height <= side && moments.width <= side) return checked_moments(autoencoder, images);
  return tiled(images, moments.height, moments.width, side, ratio, 1, moments.channels,
               [&](const Tensor& part) { return checked_moments(autoencoder, part); });
}

}  // namespace brume
