// Latent consistency models (Luo et al. 2023, eq. 6 and alg. 3): a model of noise or v made a consistency function by its
// boundary at t = 0, and multistep consistency sampling.
//
//   f = c_skip signal x + c_out x0,  c_skip = sd^2 / (st^2 + sd^2),  c_out = st / sqrt(st^2 + sd^2),  st = scaling t,  sd = 1/2
//   x' = f + to noise
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"

namespace brume::plugins {
namespace {

class Lcm final : public Sampler {
 public:
  struct Options {
    double timestep_scaling = 10, sigma_data = 0.5;
    void declare(Fields& f) {
      f.field("timestep_scaling", timestep_scaling, "scale of the training time in the boundary condition", at_least(0));
      f.field("sigma_data", sigma_data, "standard deviation of the data in the boundary condition", more_than(0));
    }
  };
  explicit Lcm(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.consistency = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    const NoiseSchedule& schedule = run.training_times();
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      const double t = o_.timestep_scaling * schedule.time(from), s2 = o_.sigma_data * o_.sigma_data;
      x = x * (schedule.signal(from) * s2 / (t * t + s2)) + x0 * (t / std::sqrt(t * t + s2));
      if (i + 1 < steps) x = x + run.noise.draw(x, from, to) * to;
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_lcm(Registry& r) { r.add<Sampler, Lcm>("lcm", "latent consistency models: boundary condition, then fresh noise"); }

}  // namespace brume::plugins
