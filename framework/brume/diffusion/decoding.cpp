#include "brume/diffusion/decoding.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/errors.h"
#include "brume/config/out_of_memory.h"
#include "brume/core/boundary.h"
#include "brume/diffusion/tiling.h"

namespace brume {
namespace {

bool finite(const Tensor& x) { return at::isfinite(x).all().item<bool>(); }

Tensor decode(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile) {
  return tile > 0 ? decode_tiled(autoencoder, latents, image, {tile}) : checked_images(autoencoder, latents, image);
}

/// Returns the largest power of two below `side` of which a piece can be decoded, found by doing so; 0 if none can.
int64_t tile_that_fits(const Autoencoder& autoencoder, const Tensor& latents, int64_t ratio, int64_t side) {
  int64_t tile = 1;
  while (2 * tile < side) tile *= 2;
  return largest_that_fits(tile, 4 * ratio, [&](int64_t side) {
    autoencoder.decode(at::zeros({latents.size(0), latents.size(1), side / ratio, side / ratio}, latents.options()));
  });
}

}  // namespace

Tensor decode_sampled(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile) {
  if (!finite(latents))
    throw ConfigError(
        "sampling ended in NaN or infinity. Weights or guidance that need a wider range are computed in fp32 (compute.precision)");
  std::string asked;
  try {
    const Tensor images = decode(autoencoder, latents, image, tile);
    if (!finite(images))
      throw ConfigError("the autoencoder gave NaN or infinity. Weights that need a wider range are computed in fp32 (compute.precision)");
    return images;
  } catch (const std::exception& e) {
    const auto memory = out_of_memory(e);
    if (!memory) throw;
    asked = *memory;
  }
  const int64_t side = std::min(tile > 0 ? tile : image.height, std::max(image.height, image.width));
  const int64_t fits = tile_that_fits(autoencoder, latents, image.height / latents.size(2), side);
  throw ConfigError(fmt::format("there is not enough memory to decode {} image{} of {}x{}{}{}: {}", latents.size(0),
                                latents.size(0) == 1 ? "" : "s at once", image.width, image.height,
                                tile > 0 ? fmt::format(" in pieces of {}", tile) : "", asked,
                                fits > 0 ? fmt::format("pieces of {0} pixels fit (sample.tile: {0})", fits)
                                         : "no piece fits either; fewer images per batch need less"));
}

}  // namespace brume
