// DEIS (Zhang & Chen 2023, tAB-DEIS): Adams-Bashforth on the noise estimates, as polynomials in log sigma, integrated over sigma
// ("log rho" there).
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
    bool lower_order_final = true;
    void declare(Fields& f) {
      f.field("order", order, "noise estimates used", within(1, 4));
      f.field("lower_order_final", lower_order_final, "with fewer than 15 steps, end with orders 2 and 1");
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
      std::vector<double> nodes;
      for (size_t j = 0; j < order; ++j) nodes.push_back(-past.lambdas()[j]);
      std::vector<double> weights = exponential_adams_weights(nodes, std::log(from), std::log(to), 1);
      for (double& w : weights) w *= to;  // the weights are relative to the end
      x = x + weighted_sum(weights, past.values());
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_deis(Registry& r) { r.add<Sampler, Deis>("deis", "DEIS: exponential Adams-Bashforth in log sigma"); }

}  // namespace brume::plugins
