// The midpoint method in log sigma ("DPM2" of k-diffusion, after Karras et al. 2022, alg. 2, and DPM-Solver-2 of Lu et al. 2022a),
// with churn or with the noise of an ancestral step.
//
//   mid = sqrt(sigma down),  y = x + (mid - sigma) d(x, sigma),  x' = x + (down - sigma) d(y, mid) + up noise
//
// `split: flow` is the same in s = sigma / (1 + sigma), of x / (1 + sigma).
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

struct PlainOptions {
  Churn churn;
  Ancestral noise{.eta = 0};
  void declare(Fields& f) { churn.declare(f); }
};

struct AncestralOptions {
  Churn churn;
  Ancestral noise;
  void declare(Fields& f) { noise.declare(f); }
};

template <class O>
class Dpm2 final : public Sampler {
 public:
  using Options = O;
  explicit Dpm2(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.churn.adds_noise() || o_.noise.eta > 0 ? 0 : 2}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const Tensor before = x;
      const double sigma = o_.churn.raise(x, sigmas[size_t(i)], steps, run.noise), to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigmas[size_t(i)], before, x0});
      const auto [down, up] = o_.noise.step(sigma, to);
      const double mid = std::sqrt(sigma * down);
      if (mid > 0 && o_.noise.flow) {
        x = along_s(denoiser, x, x0, sigma, down, run);
      } else if (mid > 0) {
        const Tensor y = x0 + (x - x0) * (mid / sigma);
        x = x + (y - denoiser.denoise(y, mid, run.condition).x0) * ((down - sigma) / mid);
      } else {
        x = x0 + (x - x0) * (down / sigma);
      }
      if (up > 0) x = x + run.noise.draw(x, sigma, to) * (o_.noise.s_noise * up);
    }
    return x;
  }

 private:
  /// Returns the midpoint step in log s, s = sigma / (1 + sigma), of y = x / (1 + sigma).
  static Tensor along_s(const Denoiser& denoiser, const Tensor& x, const Tensor& x0, double sigma, double down, Run& run) {
    const double from = sigma / (1 + sigma), to = down / (1 + down), s = std::sqrt(from * to), mid = s / (1 - s);
    const Tensor y = x0 + (x - x0) * (mid / sigma), slope = (y / (1 + mid) - denoiser.denoise(y, mid, run.condition).x0) / s;
    return (x / (1 + sigma) + slope * (to - from)) * (1 + down);
  }
  Options o_;
};

}  // namespace

void register_sampler_dpm_2(Registry& r) {
  r.add<Sampler, Dpm2<PlainOptions>>("dpm_2", "midpoint method in log sigma, with churn (KDPM2)");
  r.add<Sampler, Dpm2<AncestralOptions>>("dpm_2_ancestral", "midpoint method in log sigma with ancestral noise");
}

}  // namespace brume::plugins
