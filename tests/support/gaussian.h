#pragma once
// The exact denoiser of Gaussian data, x0 ~ N(0, s^2): the best fixture there is for a sampler, since everything about it is
// known in closed form.
#include <ATen/TensorOperators.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "brume/core/denoiser.h"

namespace brume::test {

class GaussianDenoiser final : public Denoiser {
 public:
  explicit GaussianDenoiser(double s) : s_(s) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = x * (s_ * s_ / (s_ * s_ + sigma * sigma));
    return d;
  }
  /// x on the probability-flow ODE moves from sigma `from` to `to` by this factor.
  double flow(double from, double to) const { return std::sqrt((s_ * s_ + to * to) / (s_ * s_ + from * from)); }

 private:
  double s_;
};

/// steps + 1 sigmas from `first` to `last` > 0, evenly in sigma^(1/7).
inline std::vector<double> curved(double first, double last, int64_t steps) {
  std::vector<double> sigmas;
  const double a = std::pow(first, 1.0 / 7), b = std::pow(last, 1.0 / 7);
  for (int64_t i = 0; i <= steps; ++i) sigmas.push_back(std::pow(a + (b - a) * double(i) / double(steps), 7));
  sigmas.front() = first;
  sigmas.back() = last;
  return sigmas;
}

}  // namespace brume::test
