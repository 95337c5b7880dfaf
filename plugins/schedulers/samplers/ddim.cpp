// DDIM (Song, Meng & Ermon 2021, eq. 12), in the sigma frame an Euler step with optional fresh noise.
//
//   up = eta to sqrt(1 - (to/from)^2),  down = sqrt(to^2 - up^2),  x' = x0 + (down/from) (x - x0) + up noise
//
// With a stride, a step ends at the level `stride` training times below, and its result is taken, in the network's frame, for one of the
// next level: diffusers' DDIM, whose steps are all of the same length.
//
// k-diffusion's "Euler ancestral" is the same at eta = 1. `split: flow` is that of flow matching (see Ancestral).
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <optional>

#include "brume/config/registry.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class Ddim final : public Sampler {
 public:
  struct Options {
    Ancestral noise{.eta = 0};
    std::optional<int64_t> stride;
    void declare(Fields& f) {
      noise.declare(f);
      f.field("stride", stride,
              "training times that each step but the last goes down, as diffusers' DDIM does: their number divided by the steps, rounded "
              "down; absent = to the next level",
              within(1, 1000000));
    }
  };
  explicit Ddim(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.noise.eta == 0 ? 1 : 0, .keeps_direction = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], next = sigmas[size_t(i) + 1], to = i + 1 < steps ? end_of(from, next, run) : next;
      const Estimate d = denoiser.denoise(x, from, run.condition);
      run.report({i, steps, from, x, d.x0});
      const auto [down, up] = o_.noise.step(from, to);
      const Tensor& clean = d.x0_uncond.defined() ? d.x0_uncond : d.x0;  // the estimate that gives the direction of the noise
      x = d.x0 + (x - clean) * (down / from);
      if (up > 0) x = x + run.noise.draw(x, from, to) * (o_.noise.s_noise * up);
      if (to != next) x = x * (run.training_times().signal(to) / run.training_times().signal(next));
    }
    return x;
  }

 private:
  /// Returns the level at which a step ends.
  double end_of(double from, double next, const Run& run) const {
    if (!o_.stride) return next;
    const NoiseSchedule& schedule = run.training_times();
    return schedule.sigma(std::max(schedule.t_min(), schedule.time(from) - double(*o_.stride)));
  }

  Options o_;
};

}  // namespace

void register_sampler_ddim(Registry& r) {
  r.add<Sampler, Ddim>("ddim", "DDIM: Euler in sigma, with optional fresh noise (eta)");
  r.preset<Sampler, Ddim>("euler_ancestral", "ddim", "Euler in sigma with ancestral noise: DDIM at eta 1",
                          [](Ddim::Options& o) { o.noise.eta = 1; });
}

}  // namespace brume::plugins
