#pragma once
// What consistency training and consistency distillation share (Song et al. 2023; Song & Dhariwal 2023).
#include <functional>
#include <vector>

#include "brume/numerics/noising.h"

namespace brume {

/// Returns intervals + 1 sigmas over the schedule's range, ascending and even in sigma^(1/rho) (Karras et al. 2022, eq. 5).
std::vector<double> consistency_levels(const NoiseSchedule& schedule, int64_t intervals, double rho);

/// Throws ConfigError, speaking for the objective `name`, if the model is not the identity at the schedule's smallest sigma: then
/// a constant would be a perfect consistency model.
void check_boundary(const Objective::Requirements& model, const char* name);

/// How many intervals between noise levels there are at step k of K:
///
///   doubling: min(s0 2^floor(k / K'), s1),  K' = floor(K / (log2(floor(s1 / s0)) + 1))    (Song & Dhariwal 2023, sec. 3.4)
///   square_root: ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1), at most s1              (Song et al. 2023, app. C)
struct ConsistencyCurriculum {
  enum class Growth { doubling, square_root, constant };
  Growth growth = Growth::doubling;
  int64_t first = 10, last = 1280;  ///< s0 and s1; constant: s1
  int64_t intervals(int64_t step, int64_t steps) const;
};

/// Returns the shares at which intervals of ascending levels are drawn: those of log sigma ~ N(mean, std^2) (Song & Dhariwal 2023, 3.5).
std::vector<double> log_normal_shares(const std::vector<double>& levels, double mean, double std);

/// Returns the pseudo-Huber distance of each image, [B]: sqrt(|a - b|^2 + c^2) - c of the image (Song & Dhariwal 2023, sec. 3.3), or the
/// mean of that of its numbers.
Tensor pseudo_huber(const Tensor& a, const Tensor& b, double c, bool of_numbers = false);

/// One step of a consistency loss.
struct ConsistencyPair {
  std::vector<double> above, below;  ///< neighbouring levels, one pair per image
  bool of_numbers = false;           ///< the distance is that of single numbers
  /// x at `below`, on the trajectory of x at `above`.
  std::function<Tensor(const NoisyBatch& at_above)> follow;
};
/// Returns the distance of D at `above` from D at `below`, [B]; the latter is taken without gradient, with the same dropout.
Tensor consistency_distance(const TrainableModel& model, const Tensor& x0, const Condition& condition, const ConsistencyPair& pair,
                            double huber, at::Generator& random);

}  // namespace brume
