#pragma once
// Solvers: from noise to a sample.
//
// How to write one:
//   1. Derive a final class from Sampler with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `sample()`: call the denoiser at each sigma, `run.report()` once per step, draw noise from `run.noise` alone.
//   3. Keep history in local variables: a sampler is a value that serves many runs and threads. Do not divide by the last sigma (often 0).
//   4. Say in `traits()` its order of convergence (0 if it adds noise) and what else sets it apart.
//   5. Put it into plugins/schedulers/samplers/NAME.cpp, which ends with `register_sampler_NAME`.
//   6. Read plugins/schedulers/samplers/heun.cpp as an example; `brume new sampler NAME` writes another. See docs/add-a-plugin.md.
//   7. Run `brume conform sampler NAME`, and test_contracts --gtest_filter='*Sampler*NAME*' (tests/contracts/sampler_test.cpp).
#include <functional>
#include <string_view>
#include <vector>

#include "brume/core/denoiser.h"
#include "brume/core/noise.h"
#include "brume/core/noise_schedule.h"

namespace brume {

/// One step of a run, as an observer sees it: before x moves on from `sigma`.
struct Step {
  int64_t index;
  int64_t count;  ///< 0 if it is not known beforehand
  double sigma;
  const Tensor& x;   ///< x = x0 + sigma * noise
  const Tensor& x0;  ///< the denoiser's estimate
};

/// The state of one call of a sampler.
struct Run {
  const Condition& condition;
  Noise& noise;
  std::function<bool(const Step&)> observer;  ///< false cancels the run (Interrupted)
  const NoiseSchedule* schedule = nullptr;    ///< for the few samplers that work in training times

  /// Calls the observer. Throws Interrupted if it returns false, and ConfigError naming the step if x0 is not finite.
  void report(const Step& step) const;
  /// Returns the schedule. Throws std::logic_error if the run has none.
  const NoiseSchedule& training_times() const;
};

/// What sets a sampler apart.
struct SamplerTraits {
  int order = 0;                                     ///< of convergence on the probability-flow ODE; 0 for samplers that add noise
  LearnedVariance variance = LearnedVariance::none;  ///< what the model must have learned
  bool consistency = false;      ///< takes x0 for a consistency function's (Song et al. 2023), a point of the data and not a mean
  bool keeps_direction = false;  ///< takes the direction of the noise from Estimate::x0_uncond, as cfg++ needs
  bool takes_gradient = false;   ///< shifts its mean by Estimate::gradient
  bool own_steps = false;        ///< takes its own steps between the first sigma and the last
  bool own_count = false;        ///< chooses the number of its steps, by a tolerance
};

/// Integrates from the first sigma to the last with a denoiser and noise alone. `const` and re-entrant.
class Sampler {
 public:
  static constexpr std::string_view kind = "sampler";
  virtual ~Sampler() = default;
  /// Returns x at sigmas.back(), from x at sigmas.front(). Ascending sigmas invert, if the sampler is deterministic.
  virtual Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const = 0;
  virtual SamplerTraits traits() const = 0;
};

}  // namespace brume
