// Trajectory consistency distillation (Zheng et al. 2024, alg. 4, "strategic stochastic sampling"): a deterministic step beyond
// the next time, to s = (1 - eta) t', then fresh noise back up to t'.
//
//   x_s = x0 + sigma_s eps,  x' = x_s + sqrt(to^2 - sigma_s^2) noise
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"

namespace brume::plugins {
namespace {

class Tcd final : public Sampler {
 public:
  struct Options {
    double eta = 0.3;
    void declare(Fields& f) { f.field("eta", eta, "0 = deterministic, 1 = all of the noise fresh (gamma in the paper)", within(0, 1)); }
  };
  explicit Tcd(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.eta > 0 ? 0 : 1, .consistency = o_.eta > 0}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    const NoiseSchedule& schedule = run.training_times();
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      const double exact = (1 - o_.eta) * schedule.time(to);  // 0.7 times 730 is a training time, whatever it rounds to
      const double beyond = schedule.timesteps() > 0 ? std::floor(exact + 1e-6) : exact;
      const bool last = i + 1 == steps;
      // With eta = 0 and at the end there is nothing to come back from.
      const double s = last || o_.eta == 0 ? to : std::min(to, schedule.sigma(beyond));
      x = x0 + (x - x0) * (s / from);
      if (s < to) x = x + run.noise.draw(x, from, to) * std::sqrt((to - s) * (to + s));
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_tcd(Registry& r) { r.add<Sampler, Tcd>("tcd", "trajectory consistency: a step beyond, then fresh noise"); }

}  // namespace brume::plugins
