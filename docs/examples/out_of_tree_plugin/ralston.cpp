// Ralston's method on the probability-flow ODE, one of the second-order family of EDM (Karras et al. 2022, alg. 3): unlike
// Heun's method, it never asks for the slope at sigma = 0.
//
//   d(x, sigma) = (x - x0(x, sigma)) / sigma                                             dx / dsigma
//   y = x + alpha h d(x, sigma),  x' = x + h ((1 - w) d(x, sigma) + w d(y, sigma + alpha h)),  w = 1 / (2 alpha)
#include <ATen/TensorOperators.h>

#include "brume/config/plugin.h"
#include "brume/core/sampler.h"

namespace {
using namespace brume;

class Ralston final : public Sampler {
 public:
  struct Options {
    double alpha = 2.0 / 3;
    void declare(Fields& f) { f.field("alpha", alpha, "place in the step of the second slope: 1/2 = midpoint", within(0.1, 0.9)); }
  };
  explicit Ralston(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = 2}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    const double w = 1 / (2 * o_.alpha);
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], h = sigmas[size_t(i) + 1] - sigma, between = sigma + o_.alpha * h;
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigma, x, x0});
      const Tensor d = (x - x0) / sigma;
      const Tensor y = x + d * (o_.alpha * h);
      x = x + (d * (1 - w) + (y - denoiser.denoise(y, between, run.condition).x0) * (w / between)) * h;
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

BRUME_PLUGIN("ralston") { registry.add<Sampler, Ralston>("ralston", "Ralston's method: second order, two calls per step"); }
