#pragma once
// What consistency training and consistency distillation share (Song et al. 2023; Song & Dhariwal 2023).
#include <functional>
#include <vector>

#include "brume/numerics/noising.h"

namespace brume {

/// intervals + 1 sigmas over the schedule's range, ascending and even in sigma^(1/rho) (Karras et al. 2022, eq. 5).
std::vector<double> consistency_levels(const NoiseSchedule& schedule, int64_t intervals, double rho);

/// Throws ConfigError, speaking for the objective `name`, if the model is not the identity at the schedule's smallest sigma: then
/// a constant would be a perfect consistency model.
void check_boundary(const Objective::Requirements& model, const char* name);

/// sqrt(|a - b|^2 + c^2) - c for each image, [B] (Song & Dhariwal 2023, sec. 3.3).
Tensor pseudo_huber(const Tensor& a, const Tensor& b, double c);

/// One step of a consistency loss.
struct ConsistencyPair {
  std::vector<double> above, below;  ///< neighbouring levels, one pair an image
  /// x at `below`, on the trajectory of x at `above`.
  std::function<Tensor(const NoisyBatch& at_above)> follow;
};
/// The distance of D at `above` from D at `below`, [B]; the latter is taken without gradient, with the same dropout.
Tensor consistency_distance(const TrainableModel& model, const Tensor& x0, const Condition& condition, const ConsistencyPair& pair,
                            double huber, at::Generator& random);

}  // namespace brume
