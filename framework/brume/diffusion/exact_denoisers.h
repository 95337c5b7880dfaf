#pragma once
// Denoisers known in closed form: everything about a sampler can be measured on them.
#include <vector>

#include "brume/core/denoiser.h"

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
  /// `s`: the standard deviation of every component, in each direction. Weights sum to 1.
  MixtureDenoiser(std::vector<Component> components, double s) : components_(std::move(components)), s_(s) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override;
  /// Mean and variance of the data along the first axis.
  double mean() const;
  double variance() const;

 private:
  std::vector<Component> components_;
  double s_;
};

/// One Gaussian about 0, and three of different weights, both of one dimension.
MixtureDenoiser gaussian_data();
MixtureDenoiser mixture_data();

}  // namespace brume
