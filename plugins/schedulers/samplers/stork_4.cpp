// STORK-4 (Tan et al. 2025, "STORK: Improving the fidelity of mid-NFE sampling for diffusion and flow matching models", alg. 2): the
// stabilised Runge-Kutta-Chebyshev method of order 4 (ROCK4), its inner stages on a Taylor expansion of the slope in time alone:
//
//   v(t) = v_0 + sum_k D_k (t - t_0)^k / k!,   D_k: the derivatives of the polynomial through the last slopes
//
// A method of order 4 integrates a cubic exactly, whatever its stages, so that a step needs none of its tables:
//
//   y' = y + h v_0 + sum_k D_k h^(k+1) / (k+1)!
//
// y and t are those of the frame, flow matching's by default. The first step has a slope in its middle too, and limits the order to 3. (The
// authors' program shifts the stages of ROCK4's recursion once too often and takes the steps for equally long; its numbers differ.)
#include <ATen/TensorOperators.h>

#include <vector>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/exponential.h"
#include "brume/numerics/ode_frame.h"

namespace brume::plugins {
namespace {

class Stork4 final : public Sampler {
 public:
  struct Options {
    int64_t derivatives = 3;
    Frame frame{Frame::Time::flow, Frame::Scale::flow};
    void declare(Fields& f) {
      f.field("derivatives", derivatives, "derivatives in the Taylor expansion of the slope", within(1, 3));
      frame.declare(f);
    }
  };
  explicit Stork4(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.derivatives == 1 ? 2 : 3}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    std::vector<Tensor> slopes;  // the newest first
    std::vector<double> times;   // of those
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigma, x, x0});
      if (to == sigma) continue;
      const Frame::Point here = o_.frame.at(sigma, run.schedule), there = o_.frame.at(to, run.schedule);
      const Tensor y = x * here.scale;
      const double h = there.u - here.u;
      slopes.insert(slopes.begin(), here.slope(x, x0));
      times.insert(times.begin(), here.u);
      if (int64_t(times.size()) > o_.derivatives + 1) slopes.pop_back(), times.pop_back();
      const Tensor step = times.size() == 1 ? middle_slope(denoiser, y + slopes[0] * (h / 2), here.u + h / 2, run) * h
                                            : weighted_sum(adams_weights(times, here.u, there.u), slopes);
      x = (y + step) / there.scale;
    }
    return x;
  }

 private:
  Tensor middle_slope(const Denoiser& denoiser, const Tensor& y, double u, Run& run) const {
    const Frame::Point middle = o_.frame.at(o_.frame.sigma(u, run.schedule), run.schedule);
    const Tensor x = y / middle.scale;
    return middle.slope(x, denoiser.denoise(x, middle.sigma, run.condition).x0);
  }
  Options o_;
};

}  // namespace

void register_sampler_stork_4(Registry& r) {
  r.add<Sampler, Stork4>("stork_4", "STORK-4: the polynomial through the last slopes, as ROCK4 integrates it");
}

}  // namespace brume::plugins
