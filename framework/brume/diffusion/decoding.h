#pragma once
#include "brume/core/autoencoder.h"

namespace brume {

/// Throws ConfigError if x at the end of a run is not finite; warns if it is far outside what images and latents are.
void check_sampled(const Tensor& x);

/// Returns the images of latents that were sampled: whole, or in tiles of `tile` pixels per side if it is not 0 (tiling.h). If the
/// memory of the system is too small for them, they are decoded one by one, or in tiles that fit, with a warning. Throws ConfigError if the
/// latents or the images are not numbers, and if no tile fits.
Tensor decode_sampled(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile);

}  // namespace brume
