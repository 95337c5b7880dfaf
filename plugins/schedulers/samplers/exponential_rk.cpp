// Exponential Runge-Kutta methods in lambda = -log sigma, by tableau (Hochbruck & Ostermann 2005; RES, Zhang et al. 2023).
//
//   x_i = e^(-c_i h) x + h sum_j a_ij D_j at sigma e^(-c_i h),   x' = e^(-h) x + h sum_i b_i D_i,   h = log(sigma / to)
//
// A step to sigma = 0 is x' = D. `ita` raises sigma by the factor 1 + ita before each step, with fresh noise (RES, alg. 2).
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/exponential_tableau.h"

namespace brume::plugins {
namespace {

using Method = ExponentialMethod;

class ExponentialRk final : public Sampler {
 public:
  struct Options {
    Method tableau = Method::res_2s;
    double c2 = 0.5, c3 = 1, ita = 0, s_noise = 1;
    void declare(Fields& f) {
      f.choice("tableau", tableau, "the method; its stages are its network calls per step",
               {{"euler", Method::euler},
                {"res_2s", Method::res_2s},
                {"dpmpp_2s", Method::dpmpp_2s},
                {"res_3s", Method::res_3s},
                {"dpmpp_3s", Method::dpmpp_3s},
                {"etd_rk3", Method::etd_rk3},
                {"etd_rk4", Method::etd_rk4},
                {"krogstad", Method::krogstad},
                {"strehmel_weiner", Method::strehmel_weiner},
                {"hochbruck_ostermann", Method::hochbruck_ostermann},
                {"lawson_4", Method::lawson_4}});
      f.field("c2", c2, "place of the second stage within a step in log sigma, for res_2s, res_3s, dpmpp_2s, dpmpp_3s", within(0.01, 1));
      f.field("c3", c3, "place of the third stage, for res_3s and dpmpp_3s (of order 3 at 2/3)", within(0.01, 1));
      f.field("ita", ita, "noise added before each step raises sigma by the factor 1 + ita; 0 = none", at_least(0));
      f.field("s_noise", s_noise, "standard deviation of that noise", more_than(0));
      f.unused(ita == 0, "s_noise", "ita is 0");
      const bool two = tableau == Method::res_2s || tableau == Method::dpmpp_2s;
      const bool three = tableau == Method::res_3s || tableau == Method::dpmpp_3s;
      f.unused(!two && !three, "c2", "the tableau has its own places");
      f.unused(!three, "c3", "the tableau has no third stage, or its own place for it");
      f.require(tableau != Method::res_3s || std::abs(c2 - 2.0 / 3) > 1e-6, "c2", "must not be 2/3 for res_3s");
    }
  };
  explicit ExponentialRk(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.ita > 0 ? 0 : order_of(o_.tableau, o_.c3)}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const Tensor before = x;
      const double level = sigmas[size_t(i)], sigma = level * (1 + o_.ita), to = sigmas[size_t(i) + 1];
      if (o_.ita > 0) x = x + run.noise.draw(x, level, to) * (o_.s_noise * std::sqrt((sigma - level) * (sigma + level)));
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, level, before, x0});
      if (to == 0) return x0;
      if (to != sigma) x = step(denoiser, x, x0, sigma, std::log(sigma / to), run);
    }
    return x;
  }

 private:
  Tensor step(const Denoiser& denoiser, const Tensor& x, const Tensor& x0, double sigma, double h, Run& run) const {
    const ExponentialTableau t = exponential_tableau(o_.tableau, h, o_.c2, o_.c3);
    std::vector<Tensor> estimates{x0};
    const auto combined = [&](double c, const std::vector<double>& weights) {
      Tensor y = x * std::exp(-c * h);
      for (size_t j = 0; j < weights.size(); ++j)
        if (weights[j] != 0) y = y + estimates[j] * (h * weights[j]);
      return y;
    };
    for (size_t i = 1; i < t.c.size(); ++i)
      estimates.push_back(denoiser.denoise(combined(t.c[i], t.a[i]), sigma * std::exp(-t.c[i] * h), run.condition).x0);
    return combined(1, t.b);
  }
  Options o_;
};

}  // namespace

void register_sampler_exponential_rk(Registry& r) {
  r.add<Sampler, ExponentialRk>("exponential_rk", "exponential Runge-Kutta in log sigma, by tableau");
  const auto preset = [&](const char* name, const char* doc, auto set) {
    r.preset<Sampler, ExponentialRk>(name, "exponential_rk", doc, set);
  };
  using Options = ExponentialRk::Options;
  preset("res_2s", "refined exponential solver, two calls per step", [](Options&) {});
  preset("res_3s", "refined exponential solver, three calls per step", [](Options& o) { o.tableau = Method::res_3s; });
  preset("res_5s", "exponential Runge-Kutta of order 4, five calls per step", [](Options& o) { o.tableau = Method::hochbruck_ostermann; });
  preset("exp_heun_2_x0", "exponential Heun method on x0, two calls per step", [](Options& o) { o.c2 = 1; });
  preset("dpmpp_2s", "DPM-Solver++(2S): a midpoint step in log sigma", [](Options& o) { o.tableau = Method::dpmpp_2s; });
  preset("dpmpp_3s", "DPM-Solver++(3S), three calls per step",
         [](Options& o) { o.tableau = Method::dpmpp_3s, o.c2 = 1.0 / 3, o.c3 = 2.0 / 3; });
}

}  // namespace brume::plugins
