#pragma once
// The ancestral process of DDPM (Ho et al. 2020) in the sigma frame: the variances of its steps, and the terms of the variational
// bound.
//
//   q(x_to | x_from, x0) = N(x0 + (to/from)^2 (x - x0), small)
//   small = to^2 (1 - (to/from)^2)                      posterior variance, "beta tilde"
//   large = (from^2 - to^2) (1 + to^2) / (1 + from^2)   "beta"
#include <cstdint>
#include <vector>

#include "brume/core/noise_schedule.h"
#include "brume/core/tensor.h"

namespace brume {

double small_variance(double from, double to);
double large_variance(double from, double to);

/// The source of the variance of a step: a bound, or the network (LearnedVariance says what it gives).
enum class StepVariance { small, large, learned, learned_range };

/// One step. The last one ends at 0: its "small" is that of the step before, its "large" the noise that is left, as Ho et al. have it.
struct AncestralStep {
  double from = 0, to = 0;
  double log_small = 0, log_large = 0;  ///< of the variances in the network's (variance-preserving) frame, as the papers have them
};

/// The noise levels of a process, ascending, and its steps: step i goes from sigma i to sigma i - 1, step 0 to the image.
class AncestralChain {
 public:
  /// Throws ConfigError if `sigmas` are not at least two, positive and ascending.
  explicit AncestralChain(std::vector<double> sigmas);
  size_t size() const { return sigmas_.size(); }
  double sigma(size_t i) const { return sigmas_[i]; }
  AncestralStep step(size_t i) const;
  /// Returns the first sigma that is not less, or the last.
  size_t index(double sigma) const;

 private:
  std::vector<double> sigmas_;
};

/// Returns every training time of a discrete schedule, or `steps` of them if that is not 0 (a continuous schedule needs it): T even parts
/// of its time, each ending in a noise level.
AncestralChain training_chain(const NoiseSchedule& schedule, int64_t steps);

/// Returns KL(N(mean1, exp log_var1) || N(mean2, exp log_var2)) in nats, elementwise.
Tensor normal_kl(const Tensor& mean1, const Tensor& log_var1, const Tensor& mean2, const Tensor& log_var2);
/// Returns the log of the mass that N(mean, exp(log_std)^2) gives to the 8-bit level of x in [-1, 1] (Ho et al. 2020, eq. 13), with the
/// approximation of the normal distribution by tanh that DDPM's code has.
Tensor discretized_gaussian_log_likelihood(const Tensor& x, const Tensor& mean, const Tensor& log_std);

/// Returns the terms L_(t-1), or L_0 if a step ends at 0, of the bound in bits per dimension (Ho et al. 2020, eq. 5), [B]: one step per
/// image. `error`: D - x0. `raw`: what the network gives for the variance, if that is learned.
Tensor vlb_terms(const Tensor& x0, const Tensor& error, const std::vector<AncestralStep>& steps, StepVariance variance, const Tensor& raw);
/// Returns L_T, [B]: the KL of x at `sigma` from N(0, start_std^2), the start of sampling.
Tensor prior_term(const Tensor& x0, double sigma, double start_std);

}  // namespace brume
