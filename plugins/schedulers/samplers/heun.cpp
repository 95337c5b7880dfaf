// Heun's method (Karras et al. 2022, alg. 1 and, with churn, alg. 2): Euler's step, then the mean of the slopes at both ends.
//
//   y = x + (to - sigma) d(x, sigma),  x' = x + (to - sigma) (d(x, sigma) + d(y, to)) / 2,  d = (x - x0) / sigma
//
// The last step, to sigma = 0, is Euler's. In other frames than sigma: the general form, alg. 3 and eq. 81 of the same paper. With `alpha`
// below 1 the second slope is taken within the step, in the last one as well (ibid., alg. 3: 1/2 is the midpoint method, 2/3 Ralston's):
//
//   y = x + alpha h d(x),  x' = x + h ((1 - 1 / (2 alpha)) d(x) + 1 / (2 alpha) d(y)),  h = to - sigma
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/numerics/ode_frame.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class Heun final : public Sampler {
 public:
  struct Options {
    Churn churn;
    Frame frame;
    double alpha = 1;
    void declare(Fields& f) {
      churn.declare(f);
      frame.declare(f);
      f.field("alpha", alpha, "place of the second slope within a step: 1 = its end (Heun), 0.5 = midpoint method", Range{0, 1, true});
    }
  };
  explicit Heun(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.churn.adds_noise() ? 0 : 2}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const Tensor before = x;
      const double sigma = o_.churn.raise(x, sigmas[size_t(i)], steps, run.noise), to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigmas[size_t(i)], before, x0});
      const Frame::Point here = o_.frame.at(sigma, run.schedule), there = o_.frame.at(to, run.schedule);
      const Tensor y = x * here.scale, slope = here.slope(x, x0);
      const double h = there.u - here.u;
      if (o_.alpha < 1) {
        x = (y + combined_slope(denoiser, y, slope, here.u, h, run) * h) / there.scale;
        continue;
      }
      x = (y + slope * h) / there.scale;
      if (to > 0) x = (y + (slope + there.slope(x, denoiser.denoise(x, to, run.condition).x0)) * (h / 2)) / there.scale;
    }
    return x;
  }

 private:
  /// Returns the slope of a step of length h from u, out of the one at its beginning and one within it. y: x in the frame.
  Tensor combined_slope(const Denoiser& denoiser, const Tensor& y, const Tensor& slope, double u, double h, Run& run) const {
    const double sigma = o_.frame.sigma(u + o_.alpha * h, run.schedule), share = 1 / (2 * o_.alpha);
    const Frame::Point there = o_.frame.at(sigma, run.schedule);
    const Tensor x = (y + slope * (o_.alpha * h)) / there.scale;
    return slope * (1 - share) + there.slope(x, denoiser.denoise(x, sigma, run.condition).x0) * share;
  }

  Options o_;
};

}  // namespace

void register_sampler_heun(Registry& r) { r.add<Sampler, Heun>("heun", "Heun's method (EDM), in sigma or another frame, with churn"); }

}  // namespace brume::plugins
