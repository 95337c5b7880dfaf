// DPM-Solver++ and DPM-Solver, multistep (Lu et al. 2022b, alg. 2; 2022a): the last predictions give the slope, and from order 3
// the curvature, of the prediction along lambda = -log sigma; the exponential integral of that is exact (see
// numerics/exponential.h for the coefficients).
//
//   D1 = (D_i - D_(i-1)) / r,  r = h_(i-1) / h_i                                          order 2
//   x' = decay x + coef_f D_i + coef_slope D1 + coef_curvature D2 + noise_std n
//
// With an unguided estimate U (cfg++) of data prediction: x + D_i - U_i for x, and U for the earlier D (ComfyUI's dpmpp_2m_cfg_pp).
//
// eta = 0 is the ODE, 1 the SDE ("sde-dpmsolver++", k-diffusion's dpmpp_2m_sde and dpmpp_3m_sde).
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/multistep.h"

namespace brume::plugins {
namespace {

template <Prediction prediction>
struct MultistepOptions {
  int64_t order = 2;
  bool heun = false, lower_order_final = true, euler_at_final = false;
  double eta = 0, s_noise = 1;
  void declare(Fields& f) {
    f.field("order", order, "predictions used", within(1, 3));
    f.choice("solver", heun, "weight of the slope in a step without curvature: half of coef_f, or the exact integral",
             {{"midpoint", false}, {"heun", true}});
    f.field("lower_order_final", lower_order_final, "with fewer than 15 steps, end with orders 2 and 1");
    f.field("euler_at_final", euler_at_final, "end with order 1 in any case");
    f.field("eta", eta, "0 = the ODE, 1 = the reverse SDE", prediction == Prediction::data ? at_least(0) : within(0, 1));
    f.field("s_noise", s_noise, "standard deviation of the SDE's noise", more_than(0));
    f.unused(eta == 0, "s_noise", "eta is 0");
    f.unused(order == 1, {"solver", "lower_order_final", "euler_at_final"}, "order is 1");
    f.require(prediction == Prediction::data || eta == 0 || eta == 1, "eta", "must be 0 or 1 with noise prediction");
  }
};

template <Prediction prediction>
class DpmMultistep final : public Sampler {
 public:
  using Options = MultistepOptions<prediction>;
  explicit DpmMultistep(const Options& o) : o_(o) {}
  SamplerTraits traits() const override {
    return {.order = o_.eta > 0 ? 0 : int(std::min<int64_t>(o_.order, 2)),  // it begins with order 1
            .keeps_direction = prediction == Prediction::data};
  }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    PredictionHistory past(prediction, o_.order);
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Estimate d = denoiser.denoise(x, from, run.condition);
      const Tensor& x0 = d.x0;
      run.report({i, steps, from, x, x0});
      past.add(x, x0, from);
      if (to == 0) return x0;
      if (to == from) continue;
      const ExponentialStep step = exponential_step(prediction, from, to, to < from ? o_.eta : 0);
      const auto [slope, curvature] = past.derivatives(order_of(i, steps), std::log(from / to));
      const bool direction = prediction == Prediction::data && d.x0_uncond.defined();
      Tensor next = (direction ? x + (x0 - d.x0_uncond) : x) * step.decay + past.newest() * step.coef_f;
      if (slope.defined()) next = next + slope * (curvature.defined() || o_.heun ? step.coef_slope : step.coef_midpoint);
      if (curvature.defined()) next = next + curvature * step.coef_curvature;
      if (step.noise_std > 0) next = next + run.noise.draw(x, from, to) * (o_.s_noise * step.noise_std);
      if (direction) past.set_newest(d.x0_uncond);
      x = next;
    }
    return x;
  }

 private:
  int64_t order_of(int64_t i, int64_t steps) const {
    const int64_t left = steps - i;
    if (left == 1 && o_.euler_at_final) return 1;
    return o_.lower_order_final && steps < 15 ? std::min(o_.order, left) : o_.order;
  }
  Options o_;
};

}  // namespace

void register_sampler_dpm_solver_multistep(Registry& r) {
  using Dpmpp = DpmMultistep<Prediction::data>;
  using Options = Dpmpp::Options;
  r.add<Sampler, Dpmpp>("dpmpp_multistep", "DPM-Solver++, multistep, order 1 to 3, ODE or SDE");
  r.add<Sampler, DpmMultistep<Prediction::noise>>("dpm_solver_multistep",
                                                  "DPM-Solver (noise prediction), multistep, order 1 to 3, ODE or SDE");
  r.preset<Sampler, Dpmpp>("dpmpp_2m", "dpmpp_multistep", "DPM-Solver++(2M)", [](Options& o) { o.lower_order_final = false; });
  r.preset<Sampler, Dpmpp>("dpmpp_2m_sde", "dpmpp_multistep", "DPM-Solver++(2M) SDE",
                           [](Options& o) { o.lower_order_final = false, o.eta = 1; });
  r.preset<Sampler, Dpmpp>("dpmpp_3m_sde", "dpmpp_multistep", "DPM-Solver++(3M) SDE",
                           [](Options& o) { o.order = 3, o.heun = true, o.lower_order_final = false, o.eta = 1; });
}

}  // namespace brume::plugins
