#pragma once
// Denoisers and a classifier that are known in closed form.
#include <string>
#include <vector>

#include "brume/core/denoiser.h"
#include "brume/core/model_source.h"

namespace brume {

/// E[x0 | x] of data that is a mixture of isotropic Gaussians; x: [B, d].
///
///   D(x) = sum_k w_k(x) (s^2 x + sigma^2 m_k) / (s^2 + sigma^2),   w = softmax_k(log pi_k - |x - m_k|^2 / (2 (s^2 + sigma^2)))
class MixtureDenoiser final : public Denoiser {
 public:
  struct Component {
    double weight;
    std::vector<double> mean;  ///< [d]
  };
  /// Makes the denoiser of a mixture of Gaussians whose weights sum to 1. `s`: the standard deviation of every component, in each
  /// direction.
  MixtureDenoiser(std::vector<Component> components, double s) : components_(std::move(components)), s_(s) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override;
  /// Returns the mean and the variance of the data along the first axis.
  double mean() const;
  double variance() const;
  /// Returns the value that a share of the noisy data x = x0 + sigma * noise lies below, along the first axis. `share`: in (0, 1).
  double quantile(double share, double sigma = 0) const;

 private:
  std::vector<Component> components_;
  double s_;
};

/// Returns one Gaussian about 0.
MixtureDenoiser gaussian_data();
/// Returns three Gaussians of different weights, of one dimension.
MixtureDenoiser mixture_data();

/// Images of three classes: every pixel of class k is N(m_k, s^2), independent of the others.
struct ClassMixture {
  static constexpr int64_t classes = 3;  ///< the next index is the null class
  static constexpr double s = 0.3, weights[] = {0.2, 0.5, 0.3}, means[] = {-0.5, 0.1, 0.6};
  /// Returns log p(x, y = k) up to a constant, [3]; x: one noisy image.
  static Tensor log_joint(const Tensor& x, double sigma);
};

/// E[x0 | x, class] of ClassMixture, with a variance of half the estimate; without classes and for the null class, E[x0 | x]. The
/// bits of an image do not depend on its batch. Throws std::logic_error if the condition has not one row per image.
class ClassMixtureDenoiser final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override;
};

/// Bayes' classifier of ClassMixture.
class ClassMixtureClassifier final : public NoisyClassifier {
 public:
  explicit ClassMixtureClassifier(const ImageShape& shape) : shape_(shape) {}
  Tensor log_probability(const Tensor& x, double sigma, const Tensor& classes) const override;
  const std::vector<std::string>& classes() const override { return names_; }
  ImageShape shape() const override { return shape_; }

 private:
  ImageShape shape_;
  std::vector<std::string> names_{"0", "1", "2"};
};

}  // namespace brume
