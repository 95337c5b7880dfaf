#include "brume/diffusion/decoding.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/errors.h"
#include "brume/config/out_of_memory.h"
#include "brume/core/boundary.h"
#include "brume/core/memory_limit.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/tiling.h"
#include "brume/nn/ops/memory_pool.h"

namespace brume {
namespace {

bool finite(const Tensor& x) { return at::isfinite(x).all().item<bool>(); }

Tensor checked(Tensor images) {
  if (!finite(images))
    throw ConfigError("the autoencoder gave NaN or infinity. Weights that need a wider range are computed in fp32 (compute.precision)");
  return images;
}

Tensor decode(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile) {
  return tile > 0 ? decode_tiled(autoencoder, latents, image, {tile}) : checked_images(autoencoder, latents, image);
}

constexpr int64_t least_tile = 8;  ///< latents along a side

int64_t power_of_two_below(int64_t side) {
  int64_t tile = 1;
  while (2 * tile < side) tile *= 2;
  return tile;
}

/// Returns the largest power of two below `side` of which a tile can be decoded, found by doing so; 0 if none can.
int64_t tile_that_fits(const Autoencoder& autoencoder, const Tensor& latents, int64_t ratio, int64_t side) {
  return largest_that_fits(power_of_two_below(side), 4 * ratio, [&](int64_t side) {
    autoencoder.decode(at::zeros({latents.size(0), latents.size(1), side / ratio, side / ratio}, latents.options()));
  });
}

/// Returns the side of the tiles that an image is decoded in because the system lacks the memory for the whole, and warns; 0 if it has it.
int64_t tile_for_memory(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image) {
  const int64_t images = latents.size(0), ratio = image.height / latents.size(2);
  const auto needed = [&](int64_t height, int64_t width) { return images * autoencoder.decoding_memory({image.channels, height, width}); };
  const int64_t whole = needed(image.height, image.width);
  if (whole == 0 || !latents.is_cpu()) return 0;
  const int64_t room = free_memory() + int64_t(nn::MemoryPoolScope::account().free);
  if (whole <= room) return 0;
  int64_t tile = power_of_two_below(std::max(image.height, image.width));
  while (tile > least_tile * ratio && needed(tile, tile) > room) tile /= 2;
  warn(fmt::format("{}x{} pixels are decoded in tiles of {}, because the whole takes about {} MiB and {} MiB are free (sample.tile: {})",
                   image.width, image.height, tile, whole >> 20, room >> 20, tile));
  return tile;
}

[[noreturn]] void refuse(const Tensor& latents, const ImageShape& image, const std::string& asked) {
  const int64_t images = latents.size(0);
  throw ConfigError(
      fmt::format("there is not enough memory to decode {} image{} of {}x{}{}: no tile fits either; fewer images per batch need less",
                  images, images == 1 ? "" : "s at once", image.width, image.height, asked));
}

}  // namespace

Tensor decode_sampled(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile) {
  if (!finite(latents))
    throw ConfigError(
        "sampling ended in NaN or infinity. Weights or guidance that need a wider range are computed in fp32 (compute.precision)");
  if (tile == 0) tile = tile_for_memory(autoencoder, latents, image);
  std::string asked;
  try {
    return checked(decode(autoencoder, latents, image, tile));
  } catch (const std::exception& e) {
    const auto memory = out_of_memory(e);
    if (!memory) throw;
    asked = *memory;
  }
  const int64_t side = std::min(tile > 0 ? tile : image.height, std::max(image.height, image.width));
  const int64_t fits = tile_that_fits(autoencoder, latents, image.height / latents.size(2), side);
  if (fits == 0) refuse(latents, image, asked);
  warn(fmt::format("{}x{} pixels are decoded in tiles of {}, because there is not enough memory{}{} (sample.tile: {})", image.width,
                   image.height, fits, tile > 0 ? fmt::format(" for tiles of {}", tile) : "", asked, fits));
  return checked(decode(autoencoder, latents, image, fits));
}

}  // namespace brume
