// DEIS (Zhang & Chen 2023, tAB-DEIS): Adams-Bashforth on the noise estimates, as polynomials in log sigma, integrated over sigma
// ("log rho" there).
//
// With `variable: vp_time` they are polynomials in the time t of a variance-preserving process, integrated over t.
//
//   x' = x + sum_j e_(i-j) int_sigma^to L_j(log s) ds = x + sum_j e_(i-j) int L_j(u) e^u du
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/multistep.h"

namespace brume::plugins {
namespace {

class Deis final : public Sampler {
 public:
  struct Options {
    int64_t order = 2;
    bool lower_order_final = true, vp_time = false;
    void declare(Fields& f) {
      f.field("order", order, "noise estimates used", within(1, 4));
      f.field("lower_order_final", lower_order_final, "with fewer than 15 steps, end with orders 2 and 1");
      f.choice("variable", vp_time, "the variable of the polynomials: log sigma, or the time of the process that was trained (\"tab\")",
               {{"log_sigma", false}, {"vp_time", true}});
      f.unused(order == 1, {"lower_order_final", "variable"}, "order is 1");
    }
  };
  explicit Deis(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = int(std::min<int64_t>(o_.order, 2))}; }  // it begins with a step of order 1

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    PredictionHistory past(Prediction::noise, o_.order);
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      past.add(x, x0, from);
      if (to == 0) return x0;
      if (to == from) continue;
      const bool ending = o_.lower_order_final && steps < 15;
      const size_t order = std::min(past.size(), size_t(ending ? std::min(o_.order, steps - i) : o_.order));
      if (o_.vp_time) {
        std::vector<double> times;
        for (size_t j = 0; j < order; ++j) times.push_back(vp_time(std::exp(-past.lambdas()[j])));
        x = order == 1 ? x + past.newest() * (to - from) : x + weighted_sum(vp_weights(times, vp_time(to)), past.values());
        continue;
      }
      std::vector<double> nodes;
      for (size_t j = 0; j < order; ++j) nodes.push_back(-past.lambdas()[j]);
      std::vector<double> weights = exponential_adams_weights(nodes, std::log(from), std::log(to), 1);
      for (double& w : weights) w *= to;  // the weights are relative to the end
      x = x + weighted_sum(weights, past.values());
    }
    return x;
  }

 private:
  // beta(t) = bm + bd t of the process with sigma(1e-3) = 0.002 and sigma(1) = 80.
  static double slope() { return 2 * (std::log(1 + 0.002 * 0.002) / 1e-3 - std::log(1 + 80.0 * 80)) / (1e-3 - 1); }
  static double base() { return std::log(1 + 80.0 * 80) - slope() / 2; }
  static double vp_time(double sigma) {
    return (std::sqrt(base() * base() + 2 * slope() * std::log(1 + sigma * sigma)) - base()) / slope();
  }
  /// Returns int beta / 2 / sqrt(A (1 - A)) L_j dt from times[0] to `end`, the sum over 10,000 points of the authors' program.
  static std::vector<double> vp_weights(const std::vector<double>& times, double end) {
    constexpr int points = 10000;
    std::vector<double> weights(times.size(), 0);
    for (int k = 0; k < points; ++k) {
      const double t = times[0] + (end - times[0]) * k / (points - 1);
      const double a = std::exp(-slope() * t * t / 2 - base() * t), density = (base() + slope() * t) / 2 / std::sqrt(a * (1 - a));
      for (size_t j = 0; j < times.size(); ++j) {
        double share = density;
        for (size_t m = 0; m < times.size(); ++m)
          if (m != j) share *= (t - times[m]) / (times[j] - times[m]);
        weights[j] += share * (end - times[0]) / points;
      }
    }
    return weights;
  }
  Options o_;
};

}  // namespace

void register_sampler_deis(Registry& r) { r.add<Sampler, Deis>("deis", "DEIS: exponential Adams-Bashforth in log sigma"); }

}  // namespace brume::plugins
