#pragma once
// How likely a model finds an image, in nats or in bits per dimension: by the variational bound (an upper bound of the bits), and by
// the probability-flow ODE (exact for the model's own flow, up to the solver and the estimate of a trace).
#include <functional>
#include <vector>

#include "brume/core/denoiser.h"
#include "brume/core/noise.h"
#include "brume/core/noise_schedule.h"
#include "brume/diffusion/options.h"
#include "brume/numerics/ancestral.h"
#include "brume/numerics/rk45.h"

namespace brume {

/// The terms of the bound (Ho et al. 2020, eq. 5) in bits per dimension.
struct VariationalBound {
  Tensor prior;   ///< [B], L_T
  Tensor terms;   ///< [B, N], one per step; column 0 is the decoder, L_0
  Tensor x0_mse;  ///< [B, N], the mean squared error of the estimates of x0
  Tensor total() const;
};

struct BoundOptions {
  StepVariance variance = StepVariance::small;
  bool clip = true;  ///< estimates of x0 are clamped to [-1, 1], the range of images
};

/// Returns the terms of every step of the chain from the last to the first. x0: [B, C, H, W]; `start_std`: of x at the start of sampling.
/// `done` receives the number of steps that are done; false cancels (Interrupted).
VariationalBound variational_bound(const Denoiser& denoiser, const Tensor& x0, const Condition& condition, const AncestralChain& chain,
                                   double start_std, const BoundOptions& options, Noise& noise,
                                   const std::function<bool(int64_t)>& done = {});

/// Returns the source of a step's variance in a model; `fallback` if it learns none.
StepVariance step_variance(LearnedVariance learned, StepVariance fallback);

struct OdeOptions {
  enum class Probe { rademacher, gaussian };
  Rk45Options solver;
  Probe probe = Probe::rademacher;
  int64_t probes = 1;  ///< Hutchinson's estimate of the trace is the mean over so many
};

struct OdeLikelihood {
  double log_p = 0;  ///< nats
  Tensor latent;     ///< x at the largest sigma, like x
  int64_t evaluations = 0;
};

/// Returns log p(x) of one image x [1, C, H, W] at the schedule's smallest sigma (Song et al. 2021, app. D.2; Hutchinson 1989):
///
///   dx/dtau = x - D(x),   d log p/dtau = -(dim - tr dD/dx),   tau = log sigma,   tr J ~ mean of e^T J e over probes e
///
/// The noise source draws the probes. The network's weights are not to require gradients.
OdeLikelihood ode_likelihood(const Denoiser& denoiser, const Tensor& x, const Condition& condition, const NoiseSchedule& schedule,
                             const OdeOptions& options, Noise& noise);

/// Returns 8-bit images in [-1, 1] with even noise over the width of their levels, one stream per image; `first` numbers the first.
Tensor dequantized(const Tensor& images, uint64_t seed, int64_t first);

/// Returns log p in nats, of a density over images in [-1, 1], as bits per dimension of 8-bit levels.
double bits_per_dim(double log_p, int64_t dimensions);

}  // namespace brume
