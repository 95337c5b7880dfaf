#include "brume/numerics/model_statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "brume/numerics/exponential.h"

namespace brume {
namespace {

/// Returns numbers along the first of so many dimensions.
Tensor column(const std::vector<double>& numbers, int64_t dimensions) {
  std::vector<int64_t> shape(size_t(dimensions), 1);
  shape[0] = int64_t(numbers.size());
  return at::tensor(numbers, at::TensorOptions().dtype(at::kDouble)).view(shape);
}

/// Returns the coefficients of t, t^2, ... of the polynomial through the values at `times`, of which the first is 0.
std::vector<Tensor> fitted(const std::vector<Tensor>& values, const std::vector<double>& times) {
  const size_t n = times.size() - 1;
  std::vector<Tensor> differences, all;
  std::vector<std::vector<double>> powers(n, std::vector<double>(n));
  for (size_t j = 0; j < n; ++j) {
    differences.push_back(values[j + 1] - values[0]);
    for (size_t k = 0; k < n; ++k) powers[k][j] = std::pow(times[j + 1], double(k + 1));
  }
  for (size_t k = 0; k < n; ++k) {
    std::vector<double> unit(n, 0);
    unit[k] = 1;
    all.push_back(weighted_sum(solve(powers, unit), differences));
  }
  return all;
}

/// Returns the divided differences of orders 1, 2, ... at the first values.
std::vector<Tensor> divided(std::vector<Tensor> values, const std::vector<double>& times) {
  std::vector<Tensor> all;
  for (size_t i = 1; i < times.size(); ++i) {
    for (size_t j = 0; j + i < times.size(); ++j) values[j] = (values[j] - values[j + 1]) / (times[j] - times[i + j]);
    all.push_back(values[0]);
  }
  return all;
}

}  // namespace

StatisticsGrid::StatisticsGrid(std::vector<double> lambda, ModelStatistics statistics)
    : lambda_(std::move(lambda)), l_(std::move(statistics.l)) {
  L_ = running(l_);
  S_ = running(statistics.s);
  I_ = running((L_ + S_).exp());
  B_ = running((-S_).exp() * statistics.b);
  C_ = running((L_ + S_).exp() * B_);
}

/// Returns the integral of f, whose first row is at grid point `first`, up to each row.
Tensor StatisticsGrid::running(const Tensor& f, int64_t first) const {
  std::vector<double> widths;
  for (int64_t i = 0; i + 1 < f.size(0); ++i) widths.push_back((lambda(first + i + 1) - lambda(first + i)) / 2);
  const int64_t count = int64_t(widths.size());
  const Tensor pieces = (f.narrow(0, 1, count) + f.narrow(0, 0, count)) * column(widths, f.dim());
  return at::cat({at::zeros_like(f.narrow(0, 0, 1)), pieces.cumsum(0)});
}

StatisticsGrid::Point StatisticsGrid::point(int64_t index, const Tensor& x, const Tensor& x0) const {
  return {index, x - x0 - x * l_[index].to(x.options())};
}

Tensor StatisticsGrid::moved(const std::vector<Point>& points, const Tensor& x, int64_t to, bool pseudo) const {
  const int64_t s = points[0].index, rows = to - s + 1;
  const auto cast = [&](const Tensor& t) { return t.to(x.options()); };
  std::vector<Tensor> g;
  std::vector<double> times, grid;
  for (const Point& q : points) {
    g.push_back(cast((S_[s] - S_[q.index]).exp()) * q.f - cast(S_[s].exp() * (B_[q.index] - B_[s])));
    times.push_back(lambda(q.index) - lambda(s));
  }
  const Tensor width = I_[to] - I_[s], fall = (L_[s] - L_[to]).exp();
  Tensor y = cast(fall) * x - cast((-L_[to] - S_[s]).exp() * width) * g[0];
  y = y - cast((-L_[to]).exp() * (C_[to] - C_[s] - B_[s] * width));
  if (points.size() == 1) return y;
  for (int64_t i = s; i <= to; ++i) grid.push_back(lambda(i) - lambda(s));
  Tensor growth = (L_.narrow(0, s, rows) + S_.narrow(0, s, rows) - L_[s] - S_[s]).exp();
  for (const Tensor& coefficient : pseudo ? divided(g, times) : fitted(g, times)) {
    growth = growth * column(grid, growth.dim());
    y = y - cast(fall * running(growth, s)[rows - 1]) * coefficient;
  }
  return y;
}

}  // namespace brume
