// DPM-Solver++ SDE (k-diffusion; Lu et al. 2022b, app. on the SDE): a stochastic step to a point within the step, and one over
// all of it with both estimates. With eta > 0 both noises are increments of one Brownian path if the run's noise is brownian.
//
//   lambda = -log sigma,  s = from^(1-r) to^r,  y: the ancestral step from -> s with D(x)
//   x': the ancestral step from -> to with (1 - 1/(2r)) D(x) + 1/(2r) D(y)
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class DpmppSde final : public Sampler {
 public:
  struct Options {
    double eta = 1, s_noise = 1, r = 0.5;
    void declare(Fields& f) {
      f.field("eta", eta, "share of the ancestral noise; 0 = deterministic", within(0, 1));
      f.field("s_noise", s_noise, "standard deviation of that noise", more_than(0));
      f.unused(eta == 0, "s_noise", "eta is 0");
      f.field("r", r, "place in the step, in log sigma, of the second network call", within(0.05, 1));
    }
  };
  explicit DpmppSde(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.eta > 0 ? 0 : 2}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    const double share = 1 / (2 * o_.r);
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      if (to == 0) {
        x = x0;
        continue;
      }
      const double s = std::pow(from, 1 - o_.r) * std::pow(to, o_.r);
      const Tensor y = move(x, x0, from, s, run), there = denoiser.denoise(y, s, run.condition).x0;
      x = move(x, x0 * (1 - share) + there * share, from, to, run);
    }
    return x;
  }

 private:
  Tensor move(const Tensor& x, const Tensor& x0, double from, double to, Run& run) const {
    const auto [down, up] = ancestral_step(from, to, o_.eta);
    const Tensor next = x0 + (x - x0) * (down / from);
    return up > 0 ? next + run.noise.draw(x, from, to) * (o_.s_noise * up) : next;
  }
  Options o_;
};

}  // namespace

void register_sampler_dpmpp_sde(Registry& r) { r.add<Sampler, DpmppSde>("dpmpp_sde", "DPM-Solver++ SDE, two calls per step"); }

}  // namespace brume::plugins
