#include "brume/numerics/mean_discrepancy.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "brume/config/counted.h"

namespace brume {
namespace {

using at::Tensor;

constexpr int64_t block = 512;

Tensor rows_of(const Tensor& x, int64_t first) { return x.narrow(0, first, std::min(block, x.size(0) - first)).to(at::kDouble); }

Tensor integer_power(const Tensor& base, int64_t degree) {
  Tensor power = base;
  for (int64_t i = 1; i < degree; ++i) power = power * base;
  return power;
}

/// The kernel of each row of a with each of b.
struct Matrix {
  const Tensor &a, &b;
  Tensor operator()(const PolynomialKernel& k) const {
    const double gamma = k.gamma > 0 ? k.gamma : 1.0 / double(a.size(1));
    return integer_power(at::mm(a, b.t()) * gamma + k.coef0, k.degree);
  }
  Tensor operator()(const GaussianKernel& k) const {
    const Tensor squares = a.square().sum(1, true) + b.square().sum(1) - at::mm(a, b.t()) * 2;
    return (squares.clamp_min(0) * (-0.5 / (k.sigma * k.sigma))).exp();
  }
};

/// Sums of the kernel over rows and columns; of a set with itself, without the diagonal.
struct KernelSums {
  Tensor by_row, by_column;
  double total = 0, diagonal = 0;
};

KernelSums kernel_sums(const Tensor& x, const Tensor& y, const Kernel& kernel, bool itself) {
  KernelSums sums{at::zeros({x.size(0)}, at::kDouble), at::zeros({y.size(0)}, at::kDouble)};
  for (int64_t i = 0; i < x.size(0); i += block) {
    const Tensor a = rows_of(x, i);
    for (int64_t j = 0; j < y.size(0); j += block) {
      const Tensor b = rows_of(y, j), k = std::visit(Matrix{a, b}, kernel);
      if (itself && i == j) {
        sums.diagonal += k.diagonal().sum().item<double>();
        k.diagonal().zero_();
      }
      sums.by_row.narrow(0, i, a.size(0)).add_(k.sum(1));
      sums.by_column.narrow(0, j, b.size(0)).add_(k.sum(0));
    }
  }
  sums.total = sums.by_row.sum().item<double>();
  return sums;
}

/// Returns 4 / M times the variance over i of mean_j k(x_i, x_j) - mean_j k(x_i, y_j).
double variance_share(const Tensor& own, const Tensor& cross, int64_t others) {
  const double m = double(own.size(0));
  return 4 * (own / (m - 1) - cross / double(others)).var(true).item<double>() / m;
}

}  // namespace

SquaredMmd squared_mmd(const Tensor& x, const Tensor& y, const Kernel& kernel) {
  if (x.dim() != 2 || y.dim() != 2 || x.size(1) != y.size(1) || x.size(0) < 2 || y.size(0) < 2)
    throw std::invalid_argument(
        fmt::format("the discrepancy needs two sets [N >= 2, F], got {} and {}", x.size(0), counted(y.size(0), "row")));
  const double m = double(x.size(0)), n = double(y.size(0));
  const KernelSums xx = kernel_sums(x, x, kernel, true), yy = kernel_sums(y, y, kernel, true), xy = kernel_sums(x, y, kernel, false);
  SquaredMmd d;
  d.biased = (xx.total + xx.diagonal) / (m * m) + (yy.total + yy.diagonal) / (n * n) - 2 * xy.total / (m * n);
  d.unbiased = xx.total / (m * (m - 1)) + yy.total / (n * (n - 1)) - 2 * xy.total / (m * n);
  d.standard_error = std::sqrt(variance_share(xx.by_row, xy.by_row, y.size(0)) + variance_share(yy.by_row, xy.by_column, x.size(0)));
  return d;
}

std::vector<Subset> draw_subsets(int64_t count, int64_t size, int64_t m, int64_t n, uint64_t seed) {
  if (size > m || size > n)
    throw std::invalid_argument(fmt::format("subsets of {} cannot be drawn from {} and {}", counted(size, "row"), m, n));
  at::Generator random = at::detail::createCPUGenerator(seed);
  const auto draw = [&](int64_t of) {
    const Tensor order = at::randperm(of, random, at::TensorOptions().dtype(at::kLong));
    const auto* first = order.data_ptr<int64_t>();
    return std::vector<int64_t>(first, first + size);
  };
  std::vector<Subset> subsets;
  for (int64_t i = 0; i < count; ++i) {
    std::vector<int64_t> of_x = draw(m);
    subsets.emplace_back(std::move(of_x), draw(n));
  }
  return subsets;
}

SubsetMmd squared_mmd_of_subsets(const Tensor& x, const Tensor& y, const std::vector<Subset>& subsets, const Kernel& kernel) {
  std::vector<double> each;
  for (const auto& [of_x, of_y] : subsets)
    each.push_back(squared_mmd(x.index_select(0, at::tensor(of_x)), y.index_select(0, at::tensor(of_y)), kernel).unbiased);
  SubsetMmd d;
  for (const double v : each) d.mean += v / double(each.size());
  double squares = 0;
  for (const double v : each) squares += (v - d.mean) * (v - d.mean);
  d.std = std::sqrt(squares / double(each.size()));
  return d;
}

}  // namespace brume
