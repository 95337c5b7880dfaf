#pragma once
// The laws of objectives and samplers of codes, measured on positions that are independent, each with the same known distribution: the
// best estimate of a position is that distribution, whatever its own corruption.
#include <vector>

#include "brume/conform/law.h"
#include "brume/core/codes.h"
#include "brume/core/objective.h"
#include "brume/core/sampler.h"

namespace brume {

/// Measures that the loss is least for the exact model, its gradients and what it draws. `codes`: the same objective.
std::vector<Finding> conform_codes(const Objective& objective, const OfCodes& codes);
/// Measures the distribution of samples, that they are codes, and independence of batch and threads.
std::vector<Finding> conform_codes(const Sampler& sampler);

}  // namespace brume
