#pragma once
// Mean velocities of the straight path z_t = (1 - t) x0 + t n, and derivatives along a path.
#include <functional>
#include <vector>

#include "brume/core/objective.h"

namespace brume {

/// u(z, t, h): the mean velocity from t to t - h, one t and one h per image.
using MeanVelocity = std::function<Tensor(const Tensor& z, const std::vector<double>& t, const std::vector<double>& h)>;

/// Returns the mean velocity of a model that takes h as the vector of its condition (conditioner `interval`): u = (z - D) / t. Every call
/// has the same dropout. The model, the condition and the generator live as long as it.
MeanVelocity mean_velocity(const TrainableModel& model, const Condition& condition, at::Generator& random);

/// The range of t = sigma / (1 + sigma) of a schedule.
struct TimeRange {
  double least, most;
};
TimeRange flow_times(const NoiseSchedule& schedule);

/// Throws ConfigError if the model takes no length of a step. `condition`: of a batch.
void expect_interval(const Condition& condition, const char* objective);

/// Returns df/dt at each image's t, by a difference quotient of second order with points `step` apart, central if the range allows it.
/// `f`: the function at t + offset, one offset per image; `here`: f at t.
Tensor path_derivative(const std::function<Tensor(const std::vector<double>& offsets)>& f, const Tensor& here, const std::vector<double>& t,
                       double step, const TimeRange& range);

/// A batch on its paths, with a step from t to r <= t per image.
struct FlowSteps {
  Tensor x0, noise;
  std::vector<double> t, r;
  Tensor z() const;  ///< (1 - t) x0 + t noise
};

/// Returns the losses of MeanFlow per image, [B] (Geng et al. 2025, eq. 9 to 11 and sec. 4.3): S / sg(S + eps)^p,
/// S = |u - sg(v - (t - r) du/dt)|^2, v = noise - x0, du/dt along (v, 1) with r fixed.
struct MeanFlowLoss {
  double eps = 1e-3, p = 1, step = 1e-3;
};
Tensor mean_flow_losses(const MeanVelocity& u, const FlowSteps& steps, const MeanFlowLoss& loss, const TimeRange& range);

}  // namespace brume
