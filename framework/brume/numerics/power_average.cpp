#include "brume/numerics/power_average.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <utility>

namespace brume {
namespace {

using Real = long double;  // the systems are ill-conditioned
using Row = std::vector<Real>;

Real exponent_of(Real length) {
  // (e + 2)^2 (e + 3) = (e + 1) / length^2; the left side grows faster, so the largest root is where it overtakes.
  const Real inverse = 1 / (length * length);
  const auto excess = [&](Real e) { return (e + 2) * (e + 2) * (e + 3) - (e + 1) * inverse; };
  Real lo = -1, hi = 1;
  const Real turn = (-7 + std::sqrt(1 + 3 * inverse)) / 3;  // the excess grows from here on
  lo = std::max(lo, turn);
  while (excess(hi) < 0) hi *= 2;
  for (int i = 0; i < 200 && lo < hi; ++i) {
    const Real middle = (lo + hi) / 2;
    (excess(middle) < 0 ? lo : hi) = middle;
  }
  return (lo + hi) / 2;
}

Real product(Real time_a, Real a, Real time_b, Real b) {
  const Real ratio = time_a / time_b, power = time_a < time_b ? b : -a;
  return (a + 1) * (b + 1) * std::pow(ratio, power) / ((a + b + 1) * std::max(time_a, time_b));
}

/// Solves a x = b by elimination with pivots; each row of `rows` is one of a, then b's.
Row solve(std::vector<Row> rows) {
  const size_t n = rows.size();
  for (size_t k = 0; k < n; ++k) {
    size_t best = k;
    for (size_t i = k + 1; i < n; ++i)
      if (std::abs(rows[i][k]) > std::abs(rows[best][k])) best = i;
    if (rows[best][k] == 0) throw std::invalid_argument("two averages are the same");
    std::swap(rows[k], rows[best]);
    for (size_t i = k + 1; i < n; ++i) {
      const Real factor = rows[i][k] / rows[k][k];
      for (size_t j = k; j <= n; ++j) rows[i][j] -= factor * rows[k][j];
    }
  }
  Row x(n);
  for (size_t k = n; k-- > 0;) {
    x[k] = rows[k][n];
    for (size_t j = k + 1; j < n; ++j) x[k] -= rows[k][j] * x[j];
    x[k] /= rows[k][k];
  }
  return x;
}

}  // namespace

double power_exponent(double length) { return double(exponent_of(length)); }

double power_length(double exponent) { return std::sqrt((exponent + 1) / ((exponent + 2) * (exponent + 2) * (exponent + 3))); }

double power_product(const PowerAverage& a, const PowerAverage& b) {
  return double(product(a.time, exponent_of(a.length), b.time, exponent_of(b.length)));
}

std::vector<double> post_hoc_weights(const std::vector<PowerAverage>& known, const PowerAverage& wanted) {
  if (known.empty()) throw std::invalid_argument("there is no average");
  Row exponents;
  for (const PowerAverage& a : known) exponents.push_back(exponent_of(a.length));
  std::vector<Row> rows;
  for (size_t i = 0; i < known.size(); ++i) {
    Row row;
    for (size_t j = 0; j < known.size(); ++j) row.push_back(product(known[i].time, exponents[i], known[j].time, exponents[j]));
    row.push_back(product(known[i].time, exponents[i], wanted.time, exponent_of(wanted.length)));
    rows.push_back(std::move(row));
  }
  const Row x = solve(std::move(rows));
  Real sum = 0;
  for (const Real v : x) sum += v;
  std::vector<double> weights;
  for (const Real v : x) weights.push_back(double(v / sum));
  return weights;
}

}  // namespace brume
