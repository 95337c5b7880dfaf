#pragma once
// The gradients of the weights of an optimizer, and one update of them.
#include <functional>
#include <limits>
#include <vector>

#include "brume/core/optimizer.h"
#include "brume/numerics/learning_rate.h"

namespace brume {

/// Returns the gradient laid out in memory as the weight is.
Tensor gradient_of(const Tensor& weight);

/// Returns the sum of the products of two tensors of one shape, in double; it does not depend on the number of threads.
double sum_of_products(const Tensor& a, const Tensor& b);

/// Returns the norm of all gradients together, summed in double; weights without a gradient count nothing. It does not depend on the
/// number of threads.
double gradient_norm(const std::vector<Weight>& weights);

/// Returns the factor that brings a gradient of norm `norm` to the norm `clip`; 1 if it is smaller, or `clip` is 0.
inline double clip_factor(double norm, double clip) { return clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1; }

/// The weights of an optimizer, each with its learning rate and weight decay.
class GradientStep {
 public:
  GradientStep(const Optimizer::Context& context, const LearningRate& rate, double weight_decay);

  /// One weight in an update.
  struct Update {
    size_t index;     ///< in the context's weights
    Tensor weight;    ///< to be written in place
    Tensor gradient;  ///< clipped, of the weight's dtype
    double lr, weight_decay;
  };
  /// Clips the gradients, calls `begin` and then `apply` for each weight that has a gradient, without gradient mode, and clears the
  /// gradients. Returns the norm before clipping; nothing is called if it is not finite.
  double run(int64_t step, const std::function<void(const Update&)>& apply,
             const std::function<void(const std::vector<Update>&)>& begin = {});
  double learning_rate(int64_t step) const { return rate_.at(step, steps_); }
  double learning_rate(int64_t step, size_t index) const;
  double weight_decay(size_t index) const;

  const std::vector<Weight>& weights() const { return weights_; }
  /// Returns the weights whose gradients count in the norm.
  const std::vector<Weight>& counted() const { return counted_.empty() ? weights_ : counted_; }
  /// Returns a tensor of zeros like each weight.
  std::vector<Tensor> zeros() const;
  /// Adds "PREFIX.NAME" for each weight to `state`.
  void add_state(std::vector<Weight>& state, const std::string& prefix, const std::vector<Tensor>& tensors) const;

 private:
  std::vector<Weight> weights_, counted_;
  std::vector<Optimizer::Own> own_;
  int64_t steps_;
  LearningRate rate_;
  double weight_decay_;
};

}  // namespace brume
