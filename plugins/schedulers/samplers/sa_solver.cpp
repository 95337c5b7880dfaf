// SA-Solver (Xue et al. 2023, alg. 1): stochastic Adams in lambda = -log sigma, a predictor and a corrector. tau(t) says how much
// of the diffusion's noise is put back: 0 = the ODE, 1 = the reverse SDE.
//
//   data:  x' = e^(-tau^2 h) (to/from) x + sum_j b_j D_j + to sqrt(1 - e^(-2 tau^2 h)) noise
//          b_j = (1 + tau^2) int L_j(lambda) e^(-(1 + tau^2) (lambda' - lambda)) d lambda          (eq. 14 and 17 there)
//   noise: x' = x - sum_j b_j e_j + tau to sqrt(e^(2 h) - 1) noise,  e = (x - D) / sigma
//          b_j = (1 + tau^2) int L_j(lambda) e^(-lambda) d lambda                                  (app. on noise prediction)
//
// The corrector repeats the step with the same noise and the prediction at its end among the nodes.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/multistep.h"

namespace brume::plugins {
namespace {

class SaSolver final : public Sampler {
 public:
  struct Options {
    int64_t predictor_order = 2, corrector_order = 2;
    double tau = 1, tau_start = 0.2, tau_end = 0.8;
    bool lower_order_final = true;
    Prediction prediction = Prediction::data;
    void declare(Fields& f) {
      f.field("predictor_order", predictor_order, "predictions used by the predictor", within(1, 4));
      f.field("corrector_order", corrector_order, "predictions used by the corrector; 0 = no corrector", within(0, 4));
      f.field("tau", tau, "share of the noise within the interval of training time, 0 outside", at_least(0));
      f.field("tau_start", tau_start, "start of that interval in training time, from 0 to 1", within(0, 1));
      f.field("tau_end", tau_end, "end of that interval", within(0, 1));
      f.field("lower_order_final", lower_order_final, "end with lower orders");
      f.choice("prediction", prediction, "what the polynomials interpolate: the estimate of x0, or of the noise",
               {{"data", Prediction::data}, {"noise", Prediction::noise}});
      f.require(tau_start <= tau_end, "tau_start", "must not exceed tau_end");
    }
  };
  explicit SaSolver(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.tau > 0 ? 0 : int(std::min<int64_t>(o_.predictor_order, 2))}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    PredictionHistory past(o_.prediction, std::max(o_.predictor_order, o_.corrector_order));
    Move last;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      past.add(x, x0, from);
      if (i > 0 && o_.corrector_order > 0) x = moved(past, last, last.corrector_order);
      if (to == 0) return x0;
      const int64_t ending = o_.lower_order_final ? steps - i : steps;
      last = {x, {}, from, to, tau_at(from, run), std::min({o_.corrector_order, i + 2, ending + 1})};
      if (o_.tau > 0 && to < from) last.noise = run.noise.draw(x, from, to);  // each step, so that tau does not shift the stream
      x = moved(past, last, std::min({o_.predictor_order, i + 1, ending}));
    }
    return x;
  }

 private:
  struct Move {
    Tensor x, noise;
    double from = 0, to = 0, tau = 0;
    int64_t corrector_order = 1;
  };

  double tau_at(double sigma, const Run& run) const {
    const NoiseSchedule& schedule = run.training_times();
    const double range = schedule.timesteps() > 0 ? double(schedule.timesteps()) : schedule.t_max() - schedule.t_min();
    const double t = (schedule.time(sigma) - schedule.t_min()) / range;
    constexpr double rounding = 1e-9;  // of a training time that is an end of the interval
    return t >= o_.tau_start - rounding && t <= o_.tau_end + rounding ? o_.tau : 0;
  }

  /// By the newest `order` predictions; in the corrector the newest is the one at the end of the move.
  Tensor moved(const PredictionHistory& past, const Move& m, int64_t order) const {
    if (m.to == m.from) return m.x;
    const double h = std::log(m.from / m.to), tau2 = m.tau * m.tau, rate = 1 + tau2;
    const std::vector<double> nodes(past.lambdas().begin(), past.lambdas().begin() + order);
    if (o_.prediction == Prediction::noise) {
      std::vector<double> weights = exponential_adams_weights(nodes, -std::log(m.from), -std::log(m.to), -1);
      for (double& w : weights) w *= -rate * m.to;  // the weights are relative to the end
      const Tensor next = m.x + weighted_sum(weights, past.values());
      return m.noise.defined() && m.tau > 0 ? next + m.noise * (m.tau * m.to * std::sqrt(std::expm1(2 * h))) : next;
    }
    std::vector<double> weights = exponential_adams_weights(nodes, -std::log(m.from), -std::log(m.to), rate);
    if (order == 2) {  // the integral of the slope as h^2 / 2: its authors' change for few steps, of third order in h
      const double shift = (h * h / 2 - (h * rate + std::expm1(-rate * h)) / (rate * rate)) / (nodes[0] - nodes[1]);
      weights[0] += shift;
      weights[1] -= shift;
    }
    for (double& w : weights) w *= rate;
    Tensor next = m.x * (std::exp(-tau2 * h) * m.to / m.from) + weighted_sum(weights, past.values());
    if (m.noise.defined() && m.tau > 0) next = next + m.noise * (m.to * std::sqrt(-std::expm1(-2 * tau2 * h)));
    return next;
  }
  Options o_;
};

}  // namespace

void register_sampler_sa_solver(Registry& r) {
  r.add<Sampler, SaSolver>("sa_solver", "SA-Solver: stochastic Adams, predictor and corrector");
}

}  // namespace brume::plugins
