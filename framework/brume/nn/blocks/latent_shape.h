#pragma once
// The shape of a latent, for first stages that halve images a number of times.
#include "brume/core/dataset.h"

namespace brume::nn {

/// Returns the shape of `channels` latents of `ratio` x `ratio` pixels each. Throws ConfigError with the nearest possible sizes if the
/// image does not divide so.
ImageShape latent_shape(const ImageShape& image, int64_t channels, int64_t ratio);

}  // namespace brume::nn
