#include "brume/diffusion/decoding.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

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

/// Decodes the images together, or one after the other, which changes no bit.
Tensor decode(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile, bool together) {
  if (!together) {
    std::vector<Tensor> each;
    for (int64_t i = 0; i < latents.size(0); ++i) each.push_back(decode(autoencoder, latents.narrow(0, i, 1), image, tile, true));
    return at::cat(each);
  }
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
    autoencoder.decode(at::zeros({1, latents.size(1), side / ratio, side / ratio}, latents.options()));
  });
}

/// What is decoded at once: all images or one, whole (0) or in tiles.
struct Portion {
  bool together = true;
  int64_t tile = 0;
};

/// Returns what the memory of the system is enough for, and warns of tiles.
Portion portion_for_memory(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image) {
  const auto needed = [&](int64_t height, int64_t width) { return autoencoder.decoding_memory({image.channels, height, width}); };
  const int64_t one = needed(image.height, image.width), ratio = image.height / latents.size(2);
  if (one == 0 || !latents.is_cpu()) return {};
  const int64_t room = free_memory() + int64_t(nn::MemoryPoolScope::account().free);
  if (latents.size(0) * one <= room) return {};
  if (one <= room) return {.together = false};
  int64_t tile = power_of_two_below(std::max(image.height, image.width));
  while (tile > least_tile * ratio && needed(tile, tile) > room) tile /= 2;
  warn(fmt::format("{}x{} pixels are decoded in tiles of {}, because the whole takes about {} MiB and {} MiB are free (sample.tile: {})",
                   image.width, image.height, tile, one >> 20, room >> 20, tile));
  return {false, tile};
}

/// Calls decode(); returns undefined and sets `asked` if memory ran out.
Tensor attempt(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, const Portion& portion, std::string& asked) {
  try {
    return checked(decode(autoencoder, latents, image, portion.tile, portion.together));
  } catch (const std::exception& e) {
    const auto memory = out_of_memory(e);
    if (!memory) throw;
    asked = *memory;
  }
  return {};
}

}  // namespace

void check_sampled(const Tensor& x) {
  constexpr double largest = 100;
  const double size = x.abs().max().item<double>();
  if (!std::isfinite(size)) throw ConfigError("the sampler ended with NaN or Inf; nothing was written");
  if (size > largest)
    warn(
        fmt::format("the largest value at the end of the run is {:.3g}, where images and latents stay below {}: the run diverged; "
                    "`brume check` says why it may have",
                    size, largest));
}

Tensor decode_sampled(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile) {
  if (!finite(latents))
    throw ConfigError(
        "sampling ended in NaN or infinity. Weights or guidance that need a wider range are computed in fp32 (compute.precision)");
  Portion portion = tile > 0 ? Portion{true, tile} : portion_for_memory(autoencoder, latents, image);
  std::string asked;
  Tensor images = attempt(autoencoder, latents, image, portion, asked);
  if (!images.defined() && portion.together && latents.size(0) > 1) {
    portion.together = false;
    images = attempt(autoencoder, latents, image, portion, asked);
  }
  if (images.defined()) return images;
  const int64_t side = std::min(portion.tile > 0 ? portion.tile : image.height, std::max(image.height, image.width));
  const int64_t fits = tile_that_fits(autoencoder, latents, image.height / latents.size(2), side);
  if (fits == 0)
    throw ConfigError(
        fmt::format("there is not enough memory to decode an image of {}x{}{}: no tile fits either", image.width, image.height, asked));
  warn(fmt::format("{}x{} pixels are decoded in tiles of {}, because there is not enough memory{}{} (sample.tile: {})", image.width,
                   image.height, fits, portion.tile > 0 ? fmt::format(" for tiles of {}", portion.tile) : "", asked, fits));
  return checked(decode(autoencoder, latents, image, fits, false));
}

}  // namespace brume
