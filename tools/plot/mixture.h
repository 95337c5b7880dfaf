#pragma once
// Data whose denoiser is known exactly: a mixture of equal Gaussians in the plane.
//
//   D(x, sigma) = sum_k r_k (s^2 x + sigma^2 m_k) / (s^2 + sigma^2),   r_k ~ exp(-|x - m_k|^2 / (2 (s^2 + sigma^2)))
#include <vector>

#include "brume/core/denoiser.h"
#include "brume/image/canvas.h"

namespace brume::tools {

class Mixture final : public Denoiser {
 public:
  /// Means on a circle, outside most of N(0, 1), the beginning of paths, so that they can be distinguished.
  Mixture();
  /// Returns the exact x0 of x, [B, 2] float64.
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override;
  /// Returns the density of the data, about 1 at its highest.
  double density(const Point& p) const;
  const std::vector<Point>& centers() const { return centers_; }

  static constexpr double spread = 0.26;  ///< standard deviation of each Gaussian

 private:
  Tensor means_;  ///< [K, 2]
  std::vector<Point> centers_;
};

/// Counts the calls of a denoiser: what a sampler costs. Samplers with an adaptive step take the points one by one.
class Counted final : public Denoiser {
 public:
  explicit Counted(const Denoiser& inner) : inner_(inner) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    rows_ += x.size(0);
    return inner_.denoise(x, sigma, condition);
  }
  /// Returns the calls per point, for so many points.
  int64_t calls(int64_t points) const { return (rows_ + points / 2) / points; }

 private:
  const Denoiser& inner_;
  mutable int64_t rows_ = 0;
};

/// Integrates x from sigma `from` to `to` > 0 on the probability-flow ODE, to about ten digits: dx / d log sigma = x - D(x, sigma).
Tensor exact_flow(const Denoiser& denoiser, const Tensor& x, double from, double to);

}  // namespace brume::tools
