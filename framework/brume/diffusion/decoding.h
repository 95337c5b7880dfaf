#pragma once
#include "brume/core/autoencoder.h"

namespace brume {

/// The images of latents that were sampled: whole, or in pieces of `tile` pixels a side where it is not 0 (tiling.h). Throws ConfigError
/// where the latents or the images are not numbers, and where there is not enough memory: then it says which tile fits.
Tensor decode_sampled(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, int64_t tile);

}  // namespace brume
