// DPM-Solver++(2S) with ancestral noise (k-diffusion, after Lu et al. 2022b, alg. 1): a midpoint step in lambda = -log sigma.
//
//   mid = sqrt(from down),  y = (mid/from) x + (1 - mid/from) D(x),  x' = (down/from) x + (1 - down/from) D(y) + up noise
//
// With an unguided estimate U (cfg++) x is x + D(x) - U(x) in the first line, and x + D(x) - U(y) in the second (ComfyUI).
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

constexpr double pure_noise = 1e6;  // the largest sigma of a flow matching schedule, s = 1

class Dpmpp2sAncestral final : public Sampler {
 public:
  struct Options {
    Ancestral noise;
    void declare(Fields& f) { noise.declare(f); }
  };
  explicit Dpmpp2sAncestral(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.noise.eta > 0 ? 0 : 2, .keeps_direction = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Estimate d = denoiser.denoise(x, from, run.condition);
      const Tensor& x0 = d.x0;
      run.report({i, steps, from, x, x0});
      const auto [down, up] = o_.noise.step(from, to);
      if (down == 0) {
        x = x0;
      } else {
        const double mid = o_.noise.flow && from >= pure_noise ? 9999 : std::sqrt(from * down);  // s = 0.9999, as published
        const Tensor y = d.x0_uncond.defined() ? x0 + (x - d.x0_uncond) * (mid / from) : x0 + (x - x0) * (mid / from);
        const Estimate there = denoiser.denoise(y, mid, run.condition);
        const Tensor from_x = there.x0_uncond.defined() ? x + x0 - there.x0_uncond : x;
        x = there.x0 + (from_x - there.x0) * (down / from);
      }
      if (up > 0) x = x + run.noise.draw(x, from, to) * (o_.noise.s_noise * up);
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_dpmpp_2s_ancestral(Registry& r) {
  r.add<Sampler, Dpmpp2sAncestral>("dpmpp_2s_ancestral", "DPM-Solver++(2S) with ancestral noise");
}

}  // namespace brume::plugins
