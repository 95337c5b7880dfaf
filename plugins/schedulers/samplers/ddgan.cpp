// Denoising diffusion GANs (Xiao et al. 2022, eq. 4): the generator draws an image with a fresh latent, and x steps to the posterior of the
// ancestral process given it.
//
//   x0 = G(x, t, z),  z ~ N(0, 1),   x' = x0 + (to/from)^2 (x - x0) + to sqrt(1 - (to/from)^2) noise
//
// The steps are those of the training (objective ddgan, `steps`). For models without a latent it is ancestral sampling.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/ancestral.h"
#include "brume/numerics/extra_vector.h"

namespace brume::plugins {
namespace {

class Ddgan final : public Sampler {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Ddgan(const Options&) {}
  SamplerTraits traits() const override { return {}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const bool latent = vector_width(run.condition) > 0;
      const Condition condition = latent ? with_vector(run.condition, run.noise.draw(run.condition.vector, from, from)) : run.condition;
      const Tensor x0 = denoiser.denoise(x, from, condition).x0;
      run.report({i, steps, from, x, x0});
      x = x0 + (x - x0) * ((to / from) * (to / from));
      if (to > 0) x = x + run.noise.draw(x, from, to) * std::sqrt(small_variance(from, to));
    }
    return x;
  }
};

}  // namespace

void register_sampler_ddgan(Registry& r) {
  r.add<Sampler, Ddgan>("ddgan", "denoising diffusion GANs: a fresh latent in each of a few steps");
}

}  // namespace brume::plugins
