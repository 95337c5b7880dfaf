#pragma once
// Whether a sampler keeps the errors of a network small.
#include <optional>
#include <string>

#include "brume/diffusion/options.h"

namespace brume {

/// Returns a warning if this sampler, on this spacing, turns an error of 0.1 % in the network's output into one that is seen in images:
/// noise prediction at zero terminal SNR, solvers whose step from sigma = 1e6 divides by a small sigma. Measured on data of which the exact
/// denoiser is known. Returns nothing for samplers that choose their own steps, and if the spacing refuses the number of steps.
std::optional<std::string> divergence_warning(const ModelOptions& model, const SampleOptions& sample);

}  // namespace brume
