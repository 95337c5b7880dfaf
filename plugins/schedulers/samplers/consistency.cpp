// Multistep consistency sampling (Song et al. 2023, alg. 1): the estimate of x0 is taken for the image and noised again.
//
//   x' = x0 + sqrt(to^2 - last^2) noise,   last: the last sigma of the run
//
// For a consistency model (parameterization: consistency) the run ends at its sigma_min; ending at 0 it is the sampler of
// flow-matching LCMs.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"

namespace brume::plugins {
namespace {

class Consistency final : public Sampler {
 public:
  struct Options {
    double s_noise = 1;
    void declare(Fields& f) { f.field("s_noise", s_noise, "standard deviation of the fresh noise", more_than(0)); }
  };
  explicit Consistency(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.consistency = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    const double last = sigmas.back();
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      x = x0;
      if (to > last) x = x + run.noise.draw(x, from, to) * (o_.s_noise * std::sqrt((to - last) * (to + last)));
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_consistency(Registry& r) {
  r.add<Sampler, Consistency>("consistency", "one- and multistep sampling of consistency models");
}

}  // namespace brume::plugins
