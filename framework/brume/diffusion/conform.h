#pragma once
// What a plugin promises, measured: the laws of its kind on data that are known in closed form (docs/design.md, habit 11).
#include <string>
#include <vector>

#include "brume/core/noise_schedule.h"
#include "brume/core/parameterization.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"

namespace brume {

/// One law: what was measured, what is wanted.
struct Finding {
  std::string law, measured, wanted;
  bool holds = true;
};

/// Order of convergence on the Gaussian and on the mixture, inversion, the distribution at the end, one step, batches, threads.
std::vector<Finding> conform(const Sampler& sampler);
/// sigma rises, time is its inverse, the network's frame is consistent.
std::vector<Finding> conform(const NoiseSchedule& schedule);
/// steps + 1 falling sigmas within the schedule's, for one step, for ten and for as many as there are training times.
std::vector<Finding> conform(const Spacing& spacing, const NoiseSchedule& schedule);
/// x0 comes back from the target it defines.
std::vector<Finding> conform(const Parameterization& parameterization, const NoiseSchedule& schedule);

/// The order of convergence of a sampler that is deterministic and takes the steps it is given, fitted to its errors at 24, 48, 96
/// and 192 steps.
struct Convergence {
  double order = 0;  ///< -d log error / d log steps
  double error = 0;  ///< with the most steps, relative
};
Convergence convergence(const Sampler& sampler, const Denoiser& data);

}  // namespace brume
