#include "brume/numerics/dpm_solver.h"

#include <ATen/TensorOperators.h>

#include <cmath>

namespace brume {

DpmStep::DpmStep(Eps eps, Tensor x, Tensor eps_here, double from, double to)
    : eps_(std::move(eps)), x_(std::move(x)), e_(std::move(eps_here)), from_(from), to_(to), h_(std::log(from / to)) {}

double DpmStep::at(double r) const { return std::pow(from_, 1 - r) * std::pow(to_, r); }

Tensor DpmStep::first() const { return x_ - e_ * (to_ * std::expm1(h_)); }

/// Returns eps at r1, the end of the first-order step.
Tensor DpmStep::inner(double r1) {
  Tensor& known = asked_[r1];
  if (!known.defined()) known = eps_(x_ - e_ * (at(r1) * std::expm1(r1 * h_)), at(r1));
  return known;
}

Tensor DpmStep::second(double r1) { return first() - (inner(r1) - e_) * (to_ / (2 * r1) * std::expm1(h_)); }

Tensor DpmStep::third(double r1, double r2) {
  const double s2 = at(r2), z = r2 * h_;
  const Tensor u = x_ - e_ * (s2 * std::expm1(z)) - (inner(r1) - e_) * (s2 * (r2 / r1) * (std::expm1(z) / z - 1));
  return first() - (eps_(u, s2) - e_) * (to_ / r2 * (std::expm1(h_) / h_ - 1));
}

std::vector<int64_t> dpm_fast_orders(int64_t calls) {
  const int64_t m = calls / 3 + 1;
  std::vector<int64_t> orders(size_t(calls % 3 == 0 ? std::max<int64_t>(m - 2, 0) : m - 1), 3);
  if (calls % 3 == 0) {
    orders.insert(orders.end(), {2, 1});
  } else {
    orders.push_back(calls % 3);
  }
  return orders;
}

}  // namespace brume
