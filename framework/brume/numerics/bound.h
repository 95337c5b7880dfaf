#pragma once
// The variational bound as an objective: what `vlb` and `hybrid` share.
#include <memory>
#include <vector>

#include "brume/numerics/ancestral.h"
#include "brume/numerics/noising.h"

namespace brume {

/// A term of the bound for each image, of the chain of the training times.
struct BoundError {
  enum class Terms { sum, mean };
  enum class Mean { learns, fixed };
  StepVariance variance = StepVariance::small;  ///< if the model learns none
  Terms terms = Terms::sum;
  int64_t steps = 1000;

  void declare(Fields& f);
  /// Declares all but the variance: for models that learn one.
  void declare_chain(Fields& f);
  void check(const NoiseSchedule& schedule) const;

  struct Drawn {
    TimeSampler::Draw time;
    std::vector<double> sigmas;  ///< those of `time`, raised to the next level of the chain
    std::vector<AncestralStep> steps;
    int64_t chain = 0;  ///< steps in all
  };
  Drawn draw(const TimeSampler& time, const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>& memory,
             at::Generator& random) const;
  /// Returns the bound in bits per dimension, [B]: one term, or that times the number of terms. With the mean fixed, no gradient reaches F.
  Tensor per_image(const NoisyBatch& b, const Drawn& drawn, const TrainableModel::Prediction& y, const TrainableModel& model,
                   Mean mean) const;

 private:
  AncestralChain chain(const NoiseSchedule& schedule) const;
};

}  // namespace brume
