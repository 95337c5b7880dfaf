// DPM-Solver++ and DPM-Solver, single-step (Lu et al. 2022b, alg. 1; 2022a, alg. 1 and 2): the steps are taken in groups of up to
// `order`. The predictions inside a group give the slope and the curvature of one step over the whole group, and each shorter
// step within it is only there to call the network at its end.
//
//   order 2: x' = decay x + coef_f D_0 + coef_slope D1,  D1 = (D_1 - D_0) / r_1,  r_k = (lambda_k - lambda_0) / h
//   order 3: the same with D1 from D_2 ("midpoint"), or the parabola through D_0, D_1, D_2 ("heun")
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/multistep.h"

namespace brume::plugins {
namespace {

template <Prediction prediction>
struct SinglestepOptions {
  int64_t order = 2;
  bool heun = false, lower_order_final = true;
  double eta = 0, s_noise = 1;
  void declare(Fields& f) {
    f.field("order", order, "steps in a group", within(1, 3));
    f.choice("solver", heun, "weight of the slope", {{"midpoint", false}, {"heun", true}});
    f.field("lower_order_final", lower_order_final, "end with lower orders, as sigma = 0 needs");
    f.field("eta", eta, "0 = the ODE, 1 = the reverse SDE", within(0, 1));
    f.field("s_noise", s_noise, "standard deviation of the SDE's noise", more_than(0));
    f.unused(eta == 0, "s_noise", "eta is 0");
    f.unused(order == 1, {"solver", "lower_order_final"}, "order is 1");
    f.require(prediction == Prediction::data || eta == 0 || eta == 1, "eta", "must be 0 or 1 with noise prediction");
  }
};

template <Prediction prediction>
class DpmSinglestep final : public Sampler {
 public:
  using Options = SinglestepOptions<prediction>;
  explicit DpmSinglestep(const Options& o) : o_(o) {}
  SamplerTraits traits() const override {
    return {.order = o_.eta > 0 ? 0 : int(std::min<int64_t>(o_.order, 2))};  // 3 if the groups come out even
  }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    const std::vector<int64_t> orders = order_list(steps, sigmas.back() == 0);
    std::vector<Tensor> values;  // the predictions of this group
    Tensor start;                // x at its beginning
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const int64_t order = orders[size_t(i)];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      if (order == 1) values.clear(), start = x;
      values.push_back(predicted(prediction, x, x0, from));
      const double* group = sigmas.data() + (i + 1 - order);
      x = to == 0 ? x0 : to == *group ? start : step(start, values, group, to, run);
    }
    return x;
  }

 private:
  /// Returns 1, 2, 3, 1, 2, 3, …, ending low.
  std::vector<int64_t> order_list(int64_t steps, bool ends_at_zero) const {
    std::vector<int64_t> orders;
    for (int64_t i = 0; i < steps; ++i) orders.push_back(i % o_.order + 1);
    if ((!o_.lower_order_final && !ends_at_zero && steps % o_.order == 0) || o_.order == 1) return orders;
    const int64_t rest = steps % o_.order;
    if (o_.order == 3 && rest == 0 && steps >= 3) orders[size_t(steps) - 1] = 1;  // … 1, 2, 1
    if (o_.order == 2 && rest == 0) orders[size_t(steps) - 1] = 1;                // … 1, 1
    return orders;
  }

  /// Steps over the whole group, from `sigmas[0]` to `to`.
  Tensor step(const Tensor& x, const std::vector<Tensor>& values, const double* sigmas, double to, Run& run) const {
    const double from = sigmas[0], h = std::log(from / to);
    const ExponentialStep s = exponential_step(prediction, from, to, to < from ? o_.eta : 0);
    Tensor next = x * s.decay + values[0] * s.coef_f;
    if (values.size() > 1) {
      const double r1 = std::log(from / sigmas[1]) / h;
      const Tensor first = (values[1] - values[0]) / r1;
      if (values.size() == 2) {
        next = next + first * (o_.heun ? s.coef_slope : s.coef_midpoint);
      } else {
        const double r2 = std::log(from / sigmas[2]) / h;
        const Tensor second = (values[2] - values[0]) / r2;
        if (!o_.heun) {
          next = next + second * s.coef_slope;
        } else {
          next = next + (first * r2 - second * r1) * (s.coef_slope / (r2 - r1)) + (second - first) * (2 / (r2 - r1) * s.coef_curvature);
        }
      }
    }
    if (s.noise_std > 0) next = next + run.noise.draw(x, from, to) * (o_.s_noise * s.noise_std);
    return next;
  }
  Options o_;
};

}  // namespace

void register_sampler_dpm_solver_singlestep(Registry& r) {
  r.add<Sampler, DpmSinglestep<Prediction::data>>("dpmpp_singlestep", "DPM-Solver++, single-step, order 1 to 3, ODE or SDE");
  r.add<Sampler, DpmSinglestep<Prediction::noise>>("dpm_solver_singlestep",
                                                   "DPM-Solver (noise prediction), single-step, order 1 to 3, ODE or SDE");
}

}  // namespace brume::plugins
