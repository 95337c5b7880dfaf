#pragma once
// A model with the guidances of its sampling, and the noise levels of a run.
#include <memory>
#include <vector>

#include "brume/diffusion/pipeline.h"

namespace brume {

/// Returns the noise levels of a run of `steps` steps for latents of this shape, in decreasing order.
std::vector<double> sigmas_for(const Spacing& spacing, const ImageShape& latent, const NoiseSchedule& schedule, int64_t steps);

/// Returns the model's denoiser for latents of shape `latent`, with the guidances of `options`, whose models `models` opens. Throws
/// ConfigError if one cannot be made. `controls`: the taps of options.control, in every call of the network.
std::shared_ptr<const Denoiser> guided_denoiser(const Pipeline& model, const SampleOptions& options, const ModelSource& models,
                                                const ImageShape& latent, const CallTaps& controls = {});

}  // namespace brume
