#pragma once
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
  int64_t count;  ///< 0 where it is not known beforehand
  double sigma;
  const Tensor& x;   ///< x = x0 + sigma * noise
  const Tensor& x0;  ///< the denoiser's estimate
};

/// Everything that belongs to one call of a sampler. Samplers are values; the state of a run lives here.
struct Run {
  const Condition& condition;
  Noise& noise;
  std::function<bool(const Step&)> observer;  ///< false cancels the run (Interrupted)
  const NoiseSchedule* schedule = nullptr;    ///< for the few samplers that work in training times

  /// Tells the observer; throws Interrupted where it says stop, and ConfigError naming the step where x0 is not finite.
  void report(const Step& step) const;
  const NoiseSchedule& training_times() const;
};

/// Integrates from the first sigma to the last, using nothing but a denoiser and noise. `const` and re-entrant.
class Sampler {
 public:
  static constexpr std::string_view kind = "sampler";
  virtual ~Sampler() = default;
  /// x at sigmas.front() to x at sigmas.back(). Ascending sigmas invert, where the sampler is deterministic.
  virtual Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const = 0;
  /// What it needs the model to have learned.
  virtual LearnedVariance variance() const { return LearnedVariance::none; }
  /// Order of convergence on the probability-flow ODE; 0 for samplers that add noise.
  virtual int order() const = 0;
  /// True where it takes the estimate of x0 for a consistency function's (Song et al. 2023), a point of the data rather than a mean.
  virtual bool of_consistency_models() const { return false; }
  /// True where it takes the direction of the noise from Estimate::x0_uncond, as cfg++ needs.
  virtual bool keeps_direction() const { return false; }
  /// True where it takes its own steps between the first sigma and the last.
  virtual bool own_steps() const { return false; }
};

}  // namespace brume
