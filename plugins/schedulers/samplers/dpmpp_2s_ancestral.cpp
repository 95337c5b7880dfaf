// DPM-Solver++(2S) with ancestral noise (k-diffusion, after Lu et al. 2022b, alg. 1): a midpoint step in lambda = -log sigma.
//
//   mid = sqrt(from down),  y = (mid/from) x + (1 - mid/from) D(x),  x' = (down/from) x + (1 - down/from) D(y) + up noise
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class Dpmpp2sAncestral final : public Sampler {
 public:
  struct Options {
    double eta = 1, s_noise = 1;
    void declare(Fields& f) {
      f.field("eta", eta, "share of the ancestral noise; 0 = deterministic", within(0, 1));
      f.field("s_noise", s_noise, "standard deviation of that noise", more_than(0));
    }
  };
  explicit Dpmpp2sAncestral(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.eta > 0 ? 0 : 2}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      const auto [down, up] = ancestral_step(from, to, o_.eta);
      if (down == 0) {
        x = x0;
      } else {
        const double mid = std::sqrt(from * down);
        const Tensor y = x0 + (x - x0) * (mid / from), there = denoiser.denoise(y, mid, run.condition).x0;
        x = there + (x - there) * (down / from);
      }
      if (up > 0) x = x + run.noise.draw(x, from, to) * (o_.s_noise * up);
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
