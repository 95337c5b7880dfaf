// Exponential Adams-Bashforth on the estimates of x0 (Norsett 1969; Hochbruck & Ostermann 2010, sec. 4): the last estimates as a polynomial
// in lambda = -log sigma, integrated exactly. On the noise it is `deis`, without the exponential `lms`.
//
//   x' = e^(-h) x + sum_j D_(i-j) int L_j(u) e^(u - lambda') du,   L_j: the Lagrange polynomials through the last lambdas
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/multistep.h"

namespace brume::plugins {
namespace {

class ExponentialAdams final : public Sampler {
 public:
  struct Options {
    int64_t order = 3;
    void declare(Fields& f) { f.field("order", order, "estimates used", within(1, 6)); }
  };
  explicit ExponentialAdams(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = int(std::min<int64_t>(o_.order, 2))}; }  // it begins with a step of order 1

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    PredictionHistory past(Prediction::data, o_.order);
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      if (to == 0) return x0;
      if (to == from) continue;
      past.add(x, x0, from);
      const std::vector<double> weights = exponential_adams_weights(past.lambdas(), -std::log(from), -std::log(to), 1);
      x = x * (to / from) + weighted_sum(weights, past.values());
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_exponential_adams(Registry& r) {
  r.add<Sampler, ExponentialAdams>("exponential_adams", "exponential Adams-Bashforth on x0, order 1 to 6");
  const auto preset = [&](const char* name, int64_t order) {
    r.preset<Sampler, ExponentialAdams>(name, "exponential_adams", "exponential Adams-Bashforth on x0",
                                        [order](ExponentialAdams::Options& o) { o.order = order; });
  };
  preset("abnorsett_2m", 2);
  preset("abnorsett_3m", 3);
  preset("abnorsett_4m", 4);
}

}  // namespace brume::plugins
