#pragma once
// From an image to the noise that a deterministic sampler makes it from (DDIM, Song, Meng & Ermon 2021, sec. 5.4).
#include <functional>

#include "brume/diffusion/pipeline.h"

namespace brume {

struct InversionRequest {
  Tensor images;                                             ///< [count, C, H, W] in [-1, 1]
  std::vector<Annotation> annotations;                       ///< one per image
  int64_t batch = 16;                                        ///< images at once
  std::function<bool(int64_t first, const Step&)> observer;  ///< as in SampleRequest
};

/// Returns the noise N(0, 1)-like [count, C, H, W] that sample_images() takes as initial noise, with the same sampler, spacing and steps:
/// the sampler walks the spacing's sigmas upwards from the schedule's smallest, at which x is taken for the image. Unguided. Throws
/// ConfigError if the sampler adds noise.
Tensor invert(const Pipeline& model, const InversionRequest& request, const SampleOptions& options);

/// Returns the mean squared difference of each image, on the scale of [0, 1], [count] float64.
Tensor reconstruction_error(const Tensor& images, const Tensor& others);

}  // namespace brume
