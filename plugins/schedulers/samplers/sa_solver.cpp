// SA-Solver (Xue et al. 2023, alg. 1): stochastic Adams in lambda = -log sigma, a predictor and a corrector. tau says how much of the
// diffusion's noise is put back, 0 = the ODE, 1 = the reverse SDE. numerics/stochastic_adams.h has the formulas of a move.
//
// The corrector repeats the move with the same noise and the prediction at its end among the nodes. With `pece` the network is called
// again after it, and that prediction is kept.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/stochastic_adams.h"

namespace brume::plugins {
namespace {

class SaSolver final : public Sampler {
 public:
  struct Options {
    int64_t predictor_order = 2, corrector_order = 2;
    double tau = 1, tau_start = 0.2, tau_end = 0.8;
    std::optional<double> sigma_lo, sigma_hi;
    bool lower_order_final = true, before_zero = false, pece = false, halved = true, at_end = false;
    Prediction prediction = Prediction::data;
    void declare(Fields& f) {
      f.field("predictor_order", predictor_order, "predictions used by the predictor", within(1, 4));
      f.field("corrector_order", corrector_order, "predictions used by the corrector; 0 = no corrector", within(0, 4));
      f.field("tau", tau, "share of the noise within the interval, 0 outside", at_least(0));
      f.field("tau_start", tau_start, "start of that interval in training time, from 0 to 1", within(0, 1));
      f.field("tau_end", tau_end, "end of that interval", within(0, 1));
      f.choice("tau_at", at_end, "whose training time it is: that of the start of a step (diffusers), or of its end (ComfyUI)",
               {{"start", false}, {"end", true}});
      f.field("sigma_lo", sigma_lo, "least sigma at the end of a step with noise, instead of tau_start and tau_end", at_least(0));
      f.field("sigma_hi", sigma_hi, "largest sigma at the end of a step with noise", more_than(0));
      f.field("lower_order_final", lower_order_final, "end with lower orders");
      f.field("before_zero", before_zero, "the step to sigma = 0 counts as one of order 1, and is not corrected before (ComfyUI)");
      f.field("pece", pece, "call the network again after the corrector");
      f.field("simple_order_2", halved, "take h^2 / 2 for the integral of the slope of two data predictions (the authors' program)");
      f.choice("prediction", prediction, "what the polynomials interpolate: the estimate of x0, or of the noise",
               {{"data", Prediction::data}, {"noise", Prediction::noise}});
      f.unused(tau == 0, {"tau_start", "tau_end", "tau_at", "sigma_lo", "sigma_hi"}, "tau is 0");
      f.unused(sigma_lo || sigma_hi, {"tau_start", "tau_end", "tau_at"}, "sigma_lo or sigma_hi says where the noise is");
      f.unused(corrector_order == 0, "pece", "corrector_order is 0");
      f.require(tau_start <= tau_end, "tau_start", "must not exceed tau_end");
    }
  };
  explicit SaSolver(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.tau > 0 ? 0 : int(std::min<int64_t>(o_.predictor_order, 2))}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    const bool early = o_.before_zero && sigmas.back() == 0;
    PredictionHistory past(o_.prediction, std::max(o_.predictor_order, o_.corrector_order));
    AdamsMove last;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      past.add(x, x0, from);
      const int64_t ending = o_.lower_order_final ? steps - i : steps;  // steps left
      if (i > 0 && o_.corrector_order > 0 && (to > 0 || o_.pece || !early)) {
        const int64_t order = std::min({o_.corrector_order, i + 1, o_.lower_order_final && early ? ending : ending + 2});
        x = adams_moved(past, o_.prediction, last, order, o_.halved);
        if (o_.pece) {
          x0 = denoiser.denoise(x, from, run.condition).x0;
          past.set_newest(predicted(o_.prediction, x, x0, from));
        }
      }
      if (to == 0) return x0;
      last = {x, {}, from, to, tau_at(from, to, run)};
      const bool by_end = o_.sigma_lo || o_.sigma_hi || o_.at_end;
      if (to < from && (by_end ? last.tau > 0 : o_.tau > 0)) last.noise = run.noise.draw(x, from, to);
      const int64_t order =
          std::min({o_.predictor_order, i + 1, o_.lower_order_final && early ? std::max<int64_t>(1, ending - 1) : ending});
      x = adams_moved(past, o_.prediction, last, order, o_.halved);
    }
    return x;
  }

 private:
  double tau_at(double from, double to, const Run& run) const {
    if (o_.sigma_lo || o_.sigma_hi) return to >= o_.sigma_lo.value_or(0) && to <= o_.sigma_hi.value_or(INFINITY) ? o_.tau : 0;
    const NoiseSchedule& schedule = run.training_times();
    const double range = schedule.timesteps() > 0 ? double(schedule.timesteps()) : schedule.t_max() - schedule.t_min();
    const double t = o_.at_end ? schedule.time(to) / schedule.t_max() : (schedule.time(from) - schedule.t_min()) / range;
    constexpr double rounding = 1e-9;  // of a training time that is an end of the interval
    return t >= o_.tau_start - rounding && t <= o_.tau_end + rounding ? o_.tau : 0;
  }
  Options o_;
};

}  // namespace

void register_sampler_sa_solver(Registry& r) {
  r.add<Sampler, SaSolver>("sa_solver", "SA-Solver: stochastic Adams, predictor and corrector");
  r.preset<Sampler, SaSolver>("sa_solver_pece", "sa_solver", "SA-Solver that calls the network again after the corrector",
                              [](SaSolver::Options& o) { o.pece = true; });
}

}  // namespace brume::plugins
