#pragma once
#include "brume/core/autoencoder.h"

namespace brume {

/// Returns the images of latents that were sampled: whole, or in tiles of `tile` pixels per side if it is not 0 (tiling.h). Chooses tiles
/// that fit, and warns, if the memory of the system is too small for it. Throws ConfigError if the latents or the images are not numbers,
/// and if no tile fits.
Tensor decode_sampled(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile);

}  // namespace brume
