// The refined exponential solver, multistep of order 2 in lambda = -log sigma (Zhang et al. 2023, "Improved order analysis and design of
// exponential integrator for diffusion models sampling", sec. 4), with optional ancestral noise.
//
//   x' = e^(-h) x + h (b1 D_i + b2 D_(i-1)) + up noise,  h = log(sigma / down),  b2 = phi_2(-h) / c2,  b1 = phi_1(-h) - b2
//
// c2 is the place of the last call, in steps of h from the end of the step before. The first step and one to 0 are Euler's. With an
// unguided estimate U (cfg++), x gains D - U and U takes the place of D in the sum.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/phi.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class ResMultistep final : public Sampler {
 public:
  struct Options {
    double eta = 0, s_noise = 1;
    void declare(Fields& f) {
      f.field("eta", eta, "share of the ancestral noise; 0 = deterministic", within(0, 1));
      f.field("s_noise", s_noise, "standard deviation of that noise", more_than(0));
      f.unused(eta == 0, "s_noise", "eta is 0");
    }
  };
  explicit ResMultistep(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.eta > 0 ? 0 : 2, .keeps_direction = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    Tensor last;               // estimate of the step before
    double from = 0, end = 0;  // of that step
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Estimate d = denoiser.denoise(x, sigma, run.condition);
      run.report({i, steps, sigma, x, d.x0});
      const auto [down, up] = ancestral_step(sigma, to, o_.eta);
      const Tensor& clean = d.x0_uncond.defined() ? d.x0_uncond : d.x0;
      const double h = down > 0 ? std::log(sigma / down) : 0;
      if (!last.defined() || h == 0) {
        x = d.x0 + (x - clean) * (down / sigma);
      } else {
        const double c2 = std::log(end / from) / h, b2 = phi(2, -h) / c2, b1 = phi(1, -h) - b2;
        if (d.x0_uncond.defined()) x = x + (d.x0 - clean);
        x = x * (down / sigma) + (clean * b1 + last * b2) * h;
      }
      if (up > 0) x = x + run.noise.draw(x, sigma, to) * (o_.s_noise * up);
      last = clean, from = sigma, end = down;
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_res_multistep(Registry& r) {
  r.add<Sampler, ResMultistep>("res_multistep", "refined exponential solver, multistep, with optional ancestral noise");
  r.preset<Sampler, ResMultistep>("res_multistep_ancestral", "res_multistep", "refined exponential solver, multistep, at eta 1",
                                  [](ResMultistep::Options& o) { o.eta = 1; });
}

}  // namespace brume::plugins
