// Euler-Maruyama on the reverse-time SDE of the variance-exploding process (Song et al. 2021b, eq. 6, its "reverse diffusion"
// discretisation, eq. 46): the score of x is (x0 - x) / sigma^2.
//
//   g^2 = from^2 - to^2,  x' = x + g^2 (x0 - x) / from^2 + g noise;  the last step adds no noise ("denoising", app. G)
#include "brume/config/registry.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class EulerMaruyama final : public Sampler {
 public:
  struct Options {
    double s_noise = 1;
    void declare(Fields& f) { f.field("s_noise", s_noise, "standard deviation of the fresh noise", more_than(0)); }
  };
  explicit EulerMaruyama(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      x = reverse_diffusion(x, x0, from, to, i + 1 < steps ? &run.noise : nullptr, o_.s_noise);
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_euler_maruyama(Registry& r) {
  r.add<Sampler, EulerMaruyama>("euler_maruyama", "Euler-Maruyama on the reverse-time SDE");
}

}  // namespace brume::plugins
