#include "brume/numerics/exponential.h"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <stdexcept>
#include <utility>

namespace brume {
namespace {

/// (e^z - 1) / z - 1 and ((e^z - 1) / z - 1) / z - 1/2, by their series if the difference would cancel.
struct Phi {
  explicit Phi(double z) {
    if (std::abs(z) > 0.05) {
      one = std::expm1(z) / z - 1;
      two = one / z - 0.5;
      return;
    }
    double term = z / 2;  // z^k / (k + 1)!
    for (int k = 1; k < 12; ++k) {
      one += term;
      term *= z / (k + 2);
    }
    term = z / 6;
    for (int k = 1; k < 12; ++k) {
      two += term;
      term *= z / (k + 3);
    }
  }
  double one = 0, two = 0;
};

/// Returns the coefficients, lowest first, of the Lagrange polynomial that is 1 at nodes[j] and 0 at the others, in u - origin.
std::vector<double> lagrange(const std::vector<double>& nodes, size_t j, double origin) {
  std::vector<double> p{1};
  for (size_t k = 0; k < nodes.size(); ++k) {
    if (k == j) continue;
    const double root = nodes[k] - origin, scale = nodes[j] - nodes[k];
    std::vector<double> q(p.size() + 1, 0);
    for (size_t i = 0; i < p.size(); ++i) {
      q[i] -= p[i] * root / scale;
      q[i + 1] += p[i] / scale;
    }
    p = std::move(q);
  }
  return p;
}

/// Returns int_start^0 v^k e^(c v) dv for k < count.
std::vector<double> moments(double start, double c, size_t count) {
  std::vector<double> m;
  if (std::abs(c * start) < 1) {  // by the series of the exponential
    for (size_t k = 0; k < count; ++k) {
      double term = -std::pow(start, double(k + 1)), sum = 0;
      for (int n = 0; n < 20; ++n) {
        sum += term / double(k + size_t(n) + 1);
        term *= c * start / (n + 1);
      }
      m.push_back(sum);
    }
    return m;
  }
  m.push_back(-std::expm1(c * start) / c);  // each from the one before, by parts
  for (size_t k = 1; k < count; ++k) m.push_back((-std::pow(start, double(k)) * std::exp(c * start) - double(k) * m.back()) / c);
  return m;
}

}  // namespace

ExponentialStep exponential_step(Prediction prediction, double from, double to, double eta) {
  const double h = std::log(from / to);
  if (prediction == Prediction::data) {
    const double z = -(1 + eta) * h;
    const Phi phi(z);
    return {.decay = std::exp(z),
            .coef_f = -std::expm1(z),
            .coef_slope = -phi.one,
            .coef_midpoint = -std::expm1(z) / 2,
            .coef_curvature = -phi.two,
            .noise_std = to * std::sqrt(-std::expm1(-2 * eta * h))};
  }
  const double twice = eta > 0 ? 2 : 1;
  const Phi phi(h);
  return {.decay = 1,
          .coef_f = -twice * to * std::expm1(h),
          .coef_slope = -twice * to * phi.one,
          .coef_midpoint = -twice * to * std::expm1(h) / 2,
          .coef_curvature = -twice * to * phi.two,
          .noise_std = eta > 0 ? to * std::sqrt(std::expm1(2 * h)) : 0};
}

std::vector<double> exponential_adams_weights(const std::vector<double>& nodes, double a, double b, double c) {
  std::vector<double> weights;
  for (size_t j = 0; j < nodes.size(); ++j) {
    const std::vector<double> p = lagrange(nodes, j, b), m = moments(a - b, c, p.size());
    double sum = 0;
    for (size_t k = 0; k < p.size(); ++k) sum += p[k] * m[k];
    weights.push_back(sum);
  }
  return weights;
}

std::vector<double> adams_weights(const std::vector<double>& nodes, double a, double b) {
  std::vector<double> weights;
  for (size_t j = 0; j < nodes.size(); ++j) {
    const std::vector<double> p = lagrange(nodes, j, a);
    double sum = 0, power = 1;
    for (size_t k = 0; k < p.size(); ++k) sum += p[k] * (power *= b - a) / double(k + 1);
    weights.push_back(sum);
  }
  return weights;
}

Tensor weighted_sum(const std::vector<double>& weights, const std::vector<Tensor>& values) {
  Tensor sum = values[0] * weights[0];
  for (size_t j = 1; j < weights.size(); ++j) sum = sum + values[j] * weights[j];
  return sum;
}

std::vector<double> solve(std::vector<std::vector<double>> m, std::vector<double> right) {
  const size_t n = right.size();
  for (size_t c = 0; c < n; ++c) {
    size_t pivot = c;
    for (size_t r = c + 1; r < n; ++r)
      if (std::abs(m[r][c]) > std::abs(m[pivot][c])) pivot = r;
    if (m[pivot][c] == 0) throw std::domain_error("a singular system of equations");
    std::swap(m[c], m[pivot]);
    std::swap(right[c], right[pivot]);
    for (size_t r = c + 1; r < n; ++r) {
      const double factor = m[r][c] / m[c][c];
      for (size_t k = c; k < n; ++k) m[r][k] -= factor * m[c][k];
      right[r] -= factor * right[c];
    }
  }
  for (size_t c = n; c-- > 0;) {
    for (size_t k = c + 1; k < n; ++k) right[c] -= m[c][k] * right[k];
    right[c] /= m[c][c];
  }
  return right;
}

}  // namespace brume
