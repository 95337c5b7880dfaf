#pragma once
// How a run of inpainting begins.
#include <memory>

#include "brume/core/denoiser.h"

namespace brume {

/// Returns a denoiser that starts inpainting of all steps from noise alone, as published inpainting does: at `sigma`, the first of the run,
/// `inner` receives std * noise instead of z + sigma * noise in the known part; at every other sigma, x itself.
std::shared_ptr<const Denoiser> started_from_noise(std::shared_ptr<const Denoiser> inner, double sigma, double std);

}  // namespace brume
