#pragma once
// Samplers at equal numbers of network calls: how many steps fit into a budget, and how far their samples are from the exact data.
// Calls are counted, never declared.
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "brume/core/sampler.h"

namespace brume {

/// Returns the sigmas of a run of so many steps.
using StepLevels = std::function<std::vector<double>(int64_t steps)>;

/// The longest run of a sampler within a budget of network calls.
struct StepsWithin {
  int64_t steps = 0;  ///< 0 = one step makes more calls than the budget has
  int64_t calls = 0;  ///< that the run makes
};
/// Counts the denoiser's calls in runs on two numbers, and searches for the largest number of steps whose calls fit. Assumes that a step
/// makes at least one call, and a longer run no fewer than a shorter one. Throws std::logic_error for a sampler that chooses the number
/// of its steps (SamplerTraits::own_count), and whatever `levels` and the sampler throw.
StepsWithin steps_within(const Sampler& sampler, const StepLevels& levels, const NoiseSchedule& schedule, int64_t budget);

/// What a sampler makes of a budget of network calls.
struct EqualCalls {
  int64_t budget = 0;  ///< 0 for a sampler that chooses the number of its steps
  int64_t steps = 0;   ///< 0 = the budget is too small, or the sampler chooses their number
  int64_t calls = 0;   ///< counted while the samples were made
  /// Wasserstein-1 distance between the samples and the data, in units of x.
  double error = std::numeric_limits<double>::quiet_NaN();
};

/// Returns why the sampler cannot be measured with the exact denoiser of the mixture, which gives a mean of continuous data and no
/// variance; "" if it can.
std::string unsuited_for_equal_calls(const Sampler& sampler);

/// Measures one run per budget; a single run, with its own number of steps, of a sampler that chooses that. A run takes 20,000 points, in
/// float64, from sigma 40 to 0.01, evenly in sigma^(1/7), and to 0. The points begin at the quantiles of the noisy data, so that a
/// sampler that follows the ODE exactly has the error 0; one that adds noise has about 0.005 at least, as its samples are random.
std::vector<EqualCalls> equal_calls(const Sampler& sampler, const std::vector<int64_t>& budgets);

}  // namespace brume
