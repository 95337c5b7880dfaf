// Gradient estimation (Permenter & Yuan 2024, "Interpreting and improving diffusion models from an optimization perspective", eq. 17).
//
//   d_i = (x - D) / sigma,  x' = x + (to - sigma) (gamma d_i + (1 - gamma) d_(i-1))
//
// The first step is Euler's. With an unguided estimate U (cfg++): d = (x - U) / sigma and x' begins from D + to d.
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"

namespace brume::plugins {
namespace {

class GradientEstimation final : public Sampler {
 public:
  struct Options {
    double gamma = 2;
    void declare(Fields& f) { f.field("gamma", gamma, "1 = Euler's method, 1.5 = Adams-Bashforth with equal steps", at_least(1)); }
  };
  explicit GradientEstimation(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = 1, .keeps_direction = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    Tensor last;
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Estimate d = denoiser.denoise(x, sigma, run.condition);
      run.report({i, steps, sigma, x, d.x0});
      if (to == 0) return d.x0;
      const Tensor slope = (x - (d.x0_uncond.defined() ? d.x0_uncond : d.x0)) / sigma;
      x = d.x0 + slope * to;
      if (last.defined()) x = x + (slope - last) * ((o_.gamma - 1) * (to - sigma));
      last = slope;
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_gradient_estimation(Registry& r) {
  r.add<Sampler, GradientEstimation>("gradient_estimation", "Euler's method with extrapolated slope (gamma)");
}

}  // namespace brume::plugins
