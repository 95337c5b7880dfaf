// Euler's method on the probability-flow ODE (Karras et al. 2022, alg. 1 and 2 without the correction), with optional churn.
//
//   d = (x - x0) / sigma,  x' = x + (to - sigma) d        in sigma; other frames: see Frame
//
// In sigma it is DDIM (Song, Meng & Ermon 2021), and for flow matching it is the same in every frame.
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/numerics/ode_frame.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class Euler final : public Sampler {
 public:
  struct Options {
    Churn churn;
    Frame frame;
    void declare(Fields& f) {
      churn.declare(f);
      frame.declare(f);
    }
  };
  explicit Euler(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.churn.adds_noise() ? 0 : 1, .keeps_direction = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const Tensor before = x;
      const double sigma = o_.churn.raise(x, sigmas[size_t(i)], steps, run.noise), to = sigmas[size_t(i) + 1];
      const Estimate d = denoiser.denoise(x, sigma, run.condition);
      run.report({i, steps, sigmas[size_t(i)], before, d.x0});
      const Tensor& clean = d.x0_uncond.defined() ? d.x0_uncond : d.x0;  // the estimate that gives the direction of the noise
      const Frame::Point here = o_.frame.at(sigma, run.schedule), there = o_.frame.at(to, run.schedule);
      if (here.scale == 1 && there.scale == 1 && here.sigma_rate == 1)
        x = d.x0 + (x - clean) * (to / sigma);
      else
        x = (x * here.scale + here.slope(x, clean) * (there.u - here.u) + (d.x0 - clean) * there.scale) / there.scale;
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_euler(Registry& r) { r.add<Sampler, Euler>("euler", "Euler's method, in sigma or another frame, with churn"); }

}  // namespace brume::plugins
