// SEEDS (Gonzalez et al. 2023, alg. 2 and 3): stochastic exponential Runge-Kutta in lambda = -log sigma, data prediction.
//
//   stage at r:  y = e^(-r h eta) (s / sigma) x + sum_j a_j D_j + s n,  s = sigma e^(-r h),  g = h (1 + eta)
//   two stages:   x' from (1 - 1 / (2 r)) D_1 + 1 / (2 r) D_2,                     weight 1 - e^(-g)
//     with phi_2: b_2 = g phi_2(-g) / r, b_1 = 1 - e^(-g) - b_2                   (at r = 1 the exponential Heun method)
//   three stages: b_3 = g phi_2(-g) / r_2, b_1 = 1 - e^(-g) - b_3;  a_2 = (r_2 / r_1) r_2 g phi_2(-r_2 g) for the third
//
// n is one path of the Ornstein-Uhlenbeck process of rate eta through the stages: n' = e^(-q) n + sqrt(1 - e^(-2 q)) xi, q = eta h dr.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/phi.h"

namespace brume::plugins {
namespace {

template <int stages>
struct SeedsOptions {
  double r1 = stages == 2 ? 0.5 : 1.0 / 3, r2 = 2.0 / 3, eta = 1, s_noise = 1;
  bool linear = false;
  void declare(Fields& f) {
    f.field(stages == 2 ? "r" : "r1", r1, "place of the second call within a step in log sigma", within(0.05, 1));
    if (stages == 2)
      f.choice("solver", linear, "phi_1: the mean of both estimates; phi_2: the line through them, integrated exactly (ComfyUI)",
               {{"phi_1", false}, {"phi_2", true}});
    if (stages == 3) f.field("r2", r2, "place of the third call", within(0.05, 1));
    f.field("eta", eta, "share of the reverse SDE's noise; 0 = the ODE", at_least(0));
    f.field("s_noise", s_noise, "standard deviation of that noise; 0 = none", at_least(0));
    f.unused(eta == 0, "s_noise", "eta is 0");
    if (stages == 3) f.require(r1 < r2, "r1", "must be less than r2");
  }
};

template <int stages>
class Seeds final : public Sampler {
 public:
  using Options = SeedsOptions<stages>;
  explicit Seeds(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.eta > 0 ? 0 : stages == 3 && std::abs(o_.r2 - 2.0 / 3) < 1e-3 ? 3 : 2}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigma, x, x0});
      if (to == 0) return x0;
      if (to != sigma) x = step(denoiser, x, x0, sigma, to, run);
    }
    return x;
  }

 private:
  Tensor step(const Denoiser& denoiser, const Tensor& x, const Tensor& x0, double sigma, double to, Run& run) const {
    const double h = std::log(sigma / to), eta = to < sigma ? o_.eta : 0, g = h * (1 + eta);
    Tensor n;                 // the path of the noise
    double r = 0, s = sigma;  // of the stage before
    const auto at = [&](double place, const Tensor& mean) {
      const double end = sigma * std::exp(-place * h), q = eta * h * (place - r);
      Tensor y = x * (end / sigma * std::exp(-place * h * eta)) + mean;
      if (eta > 0 && o_.s_noise > 0) {
        const Tensor fresh = run.noise.draw(x, s, end) * std::sqrt(-std::expm1(-2 * q));
        n = n.defined() ? n * std::exp(-q) + fresh : fresh;
        y = y + n * (end * o_.s_noise);
      }
      r = place, s = end;
      return y;
    };
    const auto estimate = [&](const Tensor& y) { return denoiser.denoise(y, s, run.condition).x0; };
    const Tensor second = estimate(at(o_.r1, x0 * -std::expm1(-o_.r1 * g)));
    if (stages == 2) {
      const double whole = -std::expm1(-g), b2 = o_.linear ? g * phi(2, -g) / o_.r1 : whole / (2 * o_.r1);
      return at(1, x0 * (whole - b2) + second * b2);
    }
    const double a2 = o_.r2 / o_.r1 * o_.r2 * g * phi(2, -o_.r2 * g), b3 = g * phi(2, -g) / o_.r2;
    const Tensor third = estimate(at(o_.r2, x0 * (-std::expm1(-o_.r2 * g) - a2) + second * a2));
    return at(1, x0 * (-std::expm1(-g) - b3) + third * b3);
  }
  Options o_;
};

}  // namespace

void register_sampler_seeds(Registry& r) {
  r.add<Sampler, Seeds<2>>("seeds_2", "SEEDS-2: stochastic exponential Runge-Kutta, two calls per step");
  r.preset<Sampler, Seeds<2>>("exp_heun_2_x0_sde", "seeds_2", "exponential Heun method with the noise of the reverse SDE (ComfyUI)",
                              [](Seeds<2>::Options& o) { o.r1 = 1, o.linear = true; });
  r.add<Sampler, Seeds<3>>("seeds_3", "SEEDS-3: stochastic exponential Runge-Kutta, three calls per step");
}

}  // namespace brume::plugins
