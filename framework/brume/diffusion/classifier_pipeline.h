#pragma once
// A classifier and what can be done with it.
#include <vector>

#include "brume/core/condition.h"
#include "brume/diffusion/compute.h"
#include "brume/diffusion/options.h"

namespace brume {

/// Owns a classifier. `const` use is safe from several threads.
class ClassifierPipeline {
 public:
  /// Makes a classifier whose initial weights are drawn from `seed`.
  ClassifierPipeline(const ClassifierOptions& options, const Compute& compute, uint64_t seed = 0);

  /// Returns features [B, F] and logits [B, classes] in float32 of x = x0 + sigma * noise, [B, C, H, W], a sigma per image; differentiable
  /// in x and in the weights. A classifier of clean images takes sigma 0 only; the others take the schedule's least for less.
  Classifier::Output classify(const Tensor& x, const std::vector<double>& sigmas, at::Generator* dropout = nullptr) const;
  /// Returns the same of clean images, without gradients.
  Classifier::Output classify(const Tensor& images) const;

  struct Loss {
    Tensor loss;      ///< scalar float32, differentiable: the cross-entropy, the mean over the batch
    double accuracy;  ///< of this batch, as it was shown (with its noise)
  };
  /// Returns the loss of a batch, at noise levels drawn from `random`, the only randomness. images: [B, C, H, W] in [-1, 1]. Label
  /// smoothing: Szegedy et al. 2016, sec. 7.
  Loss loss(const Tensor& images, const std::vector<Annotation>& annotations, double label_smoothing, at::Generator& random) const;

  /// Returns [B] int64. Throws ConfigError if an image has no class or one that is out of range.
  Tensor labels(const std::vector<Annotation>& annotations) const;

  /// Returns all weights, "network.…".
  const Classifier& network() const { return *network_; }
  std::vector<Weight> weights() const;
  /// Casts the weights to the compute dtype, once: for a classifier that is not trained any more.
  void freeze();

  const ClassifierOptions& options() const { return options_; }
  const Compute& compute() const { return compute_; }

 private:
  ClassifierOptions options_;
  Compute compute_;
  std::shared_ptr<Classifier> network_;
};

}  // namespace brume
