#include "brume/numerics/stochastic_adams.h"

#include <ATen/TensorOperators.h>

#include <cmath>

namespace brume {

Tensor adams_moved(const PredictionHistory& past, Prediction prediction, const AdamsMove& m, int64_t order, bool halved) {
  if (m.to == m.from) return m.x;
  const double h = std::log(m.from / m.to), tau2 = m.tau * m.tau, rate = 1 + tau2;
  const std::vector<double> nodes(past.lambdas().begin(), past.lambdas().begin() + order);
  const bool noisy = m.noise.defined() && m.tau > 0;
  if (prediction == Prediction::noise) {
    std::vector<double> weights = exponential_adams_weights(nodes, -std::log(m.from), -std::log(m.to), -1);
    for (double& w : weights) w *= -rate * m.to;  // the weights are relative to the end
    const Tensor next = m.x + weighted_sum(weights, past.values());
    return noisy ? next + m.noise * (m.tau * m.to * std::sqrt(std::expm1(2 * h))) : next;
  }
  std::vector<double> weights = exponential_adams_weights(nodes, -std::log(m.from), -std::log(m.to), rate);
  if (order == 2 && halved) {
    const double shift = (h * h / 2 - (h * rate + std::expm1(-rate * h)) / (rate * rate)) / (nodes[0] - nodes[1]);
    weights[0] += shift;
    weights[1] -= shift;
  }
  for (double& w : weights) w *= rate;
  const Tensor next = m.x * (std::exp(-tau2 * h) * m.to / m.from) + weighted_sum(weights, past.values());
  return noisy ? next + m.noise * (m.to * std::sqrt(-std::expm1(-2 * tau2 * h))) : next;
}

}  // namespace brume
