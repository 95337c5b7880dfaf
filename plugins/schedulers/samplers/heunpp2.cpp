// Heun++ with two or three slopes (DiffusionFans; ComfyUI's heunpp2): Heun's method with weights by the noise levels of the slopes.
//
//   x' = x + (to - sigma) (w1 d(x, sigma) + w2 d(x2, to) + w3 d(x3, after)),  x2 = x + (to - sigma) d,  x3 = x2 + (after - to) d(x2, to)
//   w2 = to / (3 sigma_0),  w3 = after / (3 sigma_0),  w1 = 1 - w2 - w3
//
// The last step but one has two slopes, w2 = to / (2 sigma_0); the last is Euler's.
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class Heunpp2 final : public Sampler {
 public:
  struct Options {
    Churn churn;
    void declare(Fields& f) { churn.declare(f); }
  };
  explicit Heunpp2(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.churn.adds_noise() ? 0 : 1}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const Tensor before = x;
      const double sigma = o_.churn.raise(x, sigmas[size_t(i)], steps, run.noise), to = sigmas[size_t(i) + 1], h = to - sigma;
      const auto slope = [&](const Tensor& y, double s) { return (y - denoiser.denoise(y, s, run.condition).x0) / s; };
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0, d = (x - x0) / sigma;
      run.report({i, steps, sigmas[size_t(i)], before, x0});
      const int64_t slopes = std::min<int64_t>(3, steps - i);
      Tensor mean = d;
      if (slopes > 1) {
        const Tensor x2 = x + d * h, d2 = slope(x2, to);
        const double after = slopes > 2 ? sigmas[size_t(i) + 2] : 0, n = double(slopes) * std::max(sigmas.front(), sigmas.back());
        mean = d * (1 - (to + after) / n) + d2 * (to / n);
        if (slopes > 2) mean = mean + slope(x2 + d2 * (after - to), after) * (after / n);
      }
      x = x + mean * h;
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_heunpp2(Registry& r) { r.add<Sampler, Heunpp2>("heunpp2", "Heun++ with up to three slopes per step, with churn"); }

}  // namespace brume::plugins
