#pragma once
// Targets and losses of few-step models that are compared with their authors' numbers.
#include <functional>
#include <vector>

#include "brume/numerics/flow_map.h"

namespace brume {

/// Returns a noise level per image, within the schedule's range, whose logarithms are normal (Karras et al. 2022, table 1).
std::vector<double> log_normal_levels(const NoiseSchedule& schedule, int64_t images, double mean, double std, at::Generator& random);

/// What a denoiser makes of x at one sigma per image.
using Estimates = std::function<Tensor(const Tensor& x, const std::vector<double>& sigmas)>;

/// Returns the image whose one step of DDIM from `from` to `to` ends where two of the teacher's do, by way of `middle` (Salimans & Ho 2022,
/// alg. 2); the teacher's last estimate if `to` is 0.
Tensor progressive_target(const Estimates& teacher, const Tensor& x, const std::vector<double>& from, const std::vector<double>& middle,
                          const std::vector<double>& to);

/// Settings of consistency models that are tuned from a trained model (Geng et al. 2024, "Consistency Models Made Easy", sec. 3 and app.
/// A).
struct EasyConsistency {
  double q = 2, k = 8, b = 1, c = 0;
  bool constant = false;
  /// Returns the lower noise level of a pair, r(t) = max(0, t (1 - q^-(stage + 1) (1 + k sigmoid(-b t)))).
  double below(double t, int64_t stage) const;
  /// Returns (sqrt(|a - b|^2 + c^2) - c) / (t - r), [B].
  Tensor losses(const Tensor& at_t, const Tensor& at_r, const std::vector<double>& t, const std::vector<double>& r) const;
};

/// A batch of TrigFlow (Lu & Song 2025, "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models", sec. 3.1).
struct TrigFlow {
  Tensor x;               ///< x_t = cos t x0 + sin t z, z of variance sigma_data^2
  Tensor slope;           ///< dx_t/dt
  std::vector<double> t;  ///< in (0, pi/2)
  double sigma_data = 0.5;
};
/// F(x_t, t) of TrigFlow's D = cos t x_t - sigma_data sin t F.
using TrigNetwork = std::function<Tensor(const Tensor& x, const std::vector<double>& t)>;
/// Returns the normalised tangent g (sec. 4.1 and 4.2, alg. 1). `online`: F at t; `warmup`: r, from 0 to 1; `step`: of the difference
/// quotient; `range`: of t.
struct Tangent {
  double warmup = 1, step = 1e-3, c = 0.1;
  bool normalized = true;
};
Tensor consistency_tangent(const TrigNetwork& network, const TrigFlow& batch, const Tensor& online, const Tangent& options,
                           const TimeRange& range);

/// Returns the gradient of distribution matching (Yin et al. 2024, "One-step Diffusion with Distribution Matching Distillation", eq. 7 and
/// 8): (fake - real) / mean |x - real| per image, D of the score of the generator's images and of the teacher.
Tensor distribution_gradient(const Tensor& x, const Tensor& real, const Tensor& fake);

}  // namespace brume
