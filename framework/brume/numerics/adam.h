#pragma once
// Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019) over a list of weights, one pass over memory per step.
#include <vector>

#include "brume/core/optimizer.h"
#include "brume/numerics/gradient.h"
#include "brume/numerics/learning_rate.h"

namespace brume {

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled = false;  ///< AdamW: the decay acts on the weight, not through the gradient
};

/// The moments of every weight, and the update:
///   m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  w <- w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
class Adam {
 public:
  Adam(const Optimizer::Context& context, const LearningRate& rate, const AdamOptions& options);
  /// Clips the gradients, updates, clears the gradients; `step` counts from 0. Returns the norm before clipping; nothing is updated if it
  /// is not finite.
  double update(int64_t step);
  double learning_rate(int64_t step) const { return weights_.learning_rate(step); }
  std::vector<Weight> state() const;

 private:
  GradientStep weights_;
  std::vector<Tensor> first_, second_;
  AdamOptions o_;
  LearningRate rate_;
};

}  // namespace brume
