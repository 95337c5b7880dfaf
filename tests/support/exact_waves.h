#pragma once
// The exact denoisers, latents and noise of the reference samplers (shared/refs, edm_samplers.json; shared/refs3, section 6), in float64.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <functional>
#include <vector>

#include "brume/core/denoiser.h"
#include "brume/core/noise.h"

namespace brume::test {

/// sqrt(2) cos(0.61 j + 0.1 + 1.3 k), j the flat index: the latents (k = 0), and the k-th draw.
inline Tensor wave(int64_t k) {
  return ((at::arange(96, at::kDouble) * 0.61 + (0.1 + 1.3 * double(k))).cos() * std::sqrt(2.0)).view({2, 3, 4, 4});
}

/// E[x0 | x] of N(0.25, 0.5^2) in every pixel.
inline Tensor exact_gauss(const Tensor& x, double sigma) { return (x * 0.25 + 0.25 * sigma * sigma) / (0.25 + sigma * sigma); }

/// E[x0 | x] of two Gaussians of spread 0.3 with weights 0.4 and 0.6; x: [2, 3, 4, 4].
inline Tensor exact_mixture(const Tensor& x, double sigma) {
  const Tensor i = at::arange(48, at::kDouble), flat = x.reshape({2, 48});
  const Tensor means[] = {(i * 0.9 + 0.3).sin() * 0.6, (i * 0.7).cos() * -0.5};
  const double s2 = 0.09, variance = sigma * sigma, weights[] = {0.4, 0.6};
  std::vector<Tensor> logits, estimates;
  for (int k = 0; k < 2; ++k) {
    logits.push_back((flat - means[k]).pow(2).sum(1) * (-0.5 / (s2 + variance)) + std::log(weights[k]));
    estimates.push_back((flat * s2 + means[k] * variance) / (s2 + variance));
  }
  const Tensor w = at::stack(logits, 1).softmax(1);
  return (w.narrow(1, 0, 1) * estimates[0] + w.narrow(1, 1, 1) * estimates[1]).view({2, 3, 4, 4});
}

/// The k-th draw is the k-th wave; `count` returns k.
class CountedWaves final : public Noise {
 public:
  explicit CountedWaves(std::function<int64_t()> count) : count_(std::move(count)) {}
  Tensor draw(const Tensor&, double, double) override { return wave(count_()); }

 private:
  std::function<int64_t()> count_;
};

}  // namespace brume::test
