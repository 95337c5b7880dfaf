// Extended reverse-time SDE solvers (Cui et al. 2023, alg. 1 to 3): the noise of the reverse SDE is scaled by a function f of sigma.
//
//   r = f(to) / f(sigma),  x' = r x + (1 - r) D + A D' + B D'' + s_noise sqrt(to^2 - sigma^2 r^2) noise
//   A = (to - sigma) + f(to) int_to^sigma du / f(u),   B = (to - sigma)^2 / 2 + f(to) int_to^sigma (u - sigma) / f(u) du
//
// D' and D'' are differences by sigma of the last estimates. The integrals are sums over 200 points, as in the authors' program.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"

namespace brume::plugins {
namespace {

enum class Scale { exponential, power };

class ErSde final : public Sampler {
 public:
  struct Options {
    int64_t stages = 3;
    double s_noise = 1, power = 2;
    Scale noise_scale = Scale::exponential;
    void declare(Fields& f) {
      f.field("stages", stages, "estimates used", within(1, 3));
      f.field("s_noise", s_noise, "standard deviation of the fresh noise; 0 = no noise", at_least(0));
      f.choice("noise_scale", noise_scale, "f: sigma (exp(sigma^0.3) + 10), or sigma^power",
               {{"exponential", Scale::exponential}, {"power", Scale::power}});
      f.field("power", power, "exponent of noise_scale: power; 1 = the ODE, 2 = the reverse SDE", at_least(1));
      f.unused(noise_scale == Scale::exponential, "power", "noise_scale is exponential");
      f.unused(noise_scale == Scale::power && power == 1, "s_noise", "power is 1, the ODE");
    }
  };
  explicit ErSde(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = ode() ? int(std::min<int64_t>(o_.stages, 2)) : 0}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    Tensor last, last_slope;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      if (to == 0) return x0;
      if (to == from) continue;
      const double ratio = scale(to) / scale(from);
      Tensor next = x * ratio + x0 * (1 - ratio), slope;
      if (o_.stages > 1 && i > 0) {
        slope = (x0 - last) / (from - sigmas[size_t(i) - 1]);
        next = next + slope * (to - from + scale(to) * integral(from, to, false));
      }
      if (o_.stages > 2 && i > 1) {
        const Tensor bend = (slope - last_slope) / ((from - sigmas[size_t(i) - 2]) / 2);
        next = next + bend * ((to - from) * (to - from) / 2 + scale(to) * integral(from, to, true));
      }
      const double variance = std::max(0.0, to * to - from * from * ratio * ratio);
      if (!ode() && o_.s_noise > 0) next = next + run.noise.draw(x, from, to) * (o_.s_noise * std::sqrt(variance));
      x = next, last = x0, last_slope = slope;
    }
    return x;
  }

 private:
  bool ode() const { return o_.noise_scale == Scale::power && o_.power == 1; }
  double scale(double sigma) const {
    return o_.noise_scale == Scale::power ? std::pow(sigma, o_.power) : sigma * (std::exp(std::pow(sigma, 0.3)) + 10);
  }
  /// Returns int_to^from du / f(u), of (u - from) / f(u) if `moment`.
  double integral(double from, double to, bool moment) const {
    constexpr int points = 200;
    const double width = (from - to) / points;
    double sum = 0;
    for (int k = 0; k < points; ++k) {
      const double u = to + k * width;
      sum += (moment ? u - from : 1) / scale(u);
    }
    return sum * width;
  }
  Options o_;
};

}  // namespace

void register_sampler_er_sde(Registry& r) { r.add<Sampler, ErSde>("er_sde", "extended reverse-time SDE, one to three stages"); }

}  // namespace brume::plugins
