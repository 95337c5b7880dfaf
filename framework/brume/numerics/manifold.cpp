#include "brume/numerics/manifold.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "brume/config/counted.h"

namespace brume {
namespace {

using at::Tensor;

constexpr int64_t row_block = 256, column_block = 2048;
/// Bound of the error of a squared distance from matrix products, relative to the squared norms: 2,048 roundings of 1.1e-16 are 2.3e-13.
constexpr double rounding = 1e-11;

/// Rows of features, and their squared distances from a common centre.
struct Rows {
  Tensor values;  // float32, contiguous
  std::vector<double> norms;
  double largest = 0;
  Rows(const Tensor& features, const Tensor& centre) : values(features.to(at::kCPU, at::kFloat).contiguous()) {
    for (int64_t i = 0; i < size(); i += row_block) {
      const Tensor n = centred(i, std::min(row_block, size() - i), centre).square().sum(1).contiguous();
      norms.insert(norms.end(), n.data_ptr<double>(), n.data_ptr<double>() + n.numel());
    }
    for (const double n : norms) largest = std::max(largest, n);
  }
  int64_t size() const { return values.size(0); }
  Tensor centred(int64_t first, int64_t count, const Tensor& centre) const {
    return values.narrow(0, first, count).to(at::kDouble) - centre;
  }
};

/// Returns the squared distance from differences. Symmetric, bit for bit.
double exact(const Rows& a, int64_t i, const Rows& b, int64_t j) {
  const int64_t width = a.values.size(1);
  const float *p = a.values.data_ptr<float>() + i * width, *q = b.values.data_ptr<float>() + j * width;
  double sum = 0;
  for (int64_t f = 0; f < width; ++f) sum += (double(p[f]) - double(q[f])) * (double(p[f]) - double(q[f]));
  return sum;
}

double tolerance(const Rows& a, int64_t i, const Rows& b, int64_t j) { return rounding * (a.norms[size_t(i)] + b.norms[size_t(j)]); }

/// Calls use(first, count, distances) for blocks of rows of a; distances: squared, [count, rows of b].
template <class F>
void for_blocks(const Rows& a, const Rows& b, const Tensor& centre, const F& use) {
  Tensor distances = at::empty({std::min(row_block, a.size()), b.size()}, at::kDouble);
  for (int64_t i = 0; i < a.size(); i += row_block) {
    const int64_t count = std::min(row_block, a.size() - i);
    const Tensor x = a.centred(i, count, centre);
    for (int64_t j = 0; j < b.size(); j += column_block) {
      const int64_t columns = std::min(column_block, b.size() - j);
      distances.narrow(0, 0, count).narrow(1, j, columns).copy_(at::mm(x, b.centred(j, columns, centre).t()));
    }
    double* const d = distances.data_ptr<double>();
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t c = 0; c < b.size(); ++c) d[r * b.size() + c] = a.norms[size_t(i + r)] + b.norms[size_t(c)] - 2 * d[r * b.size() + c];
    });
    use(i, count, d);
  }
}

/// Returns the squared distance of row i to its k-th neighbour, exact; `approximate`: those of the row to all.
double radius(const Rows& rows, int64_t i, const double* approximate, int64_t k) {
  std::vector<double> others(approximate, approximate + rows.size());
  others.erase(others.begin() + i);
  std::nth_element(others.begin(), others.begin() + (k - 1), others.end());
  const double around = others[size_t(k - 1)], band = 2 * rounding * (rows.norms[size_t(i)] + rows.largest);
  int64_t below = 0;  // surely nearer than the k-th
  std::vector<double> candidates;
  for (int64_t j = 0; j < rows.size(); ++j) {
    if (j == i || approximate[j] > around + band) continue;
    if (approximate[j] < around - band)
      ++below;
    else
      candidates.push_back(exact(rows, i, rows, j));
  }
  std::nth_element(candidates.begin(), candidates.begin() + (k - 1 - below), candidates.end());
  return candidates[size_t(k - 1 - below)];
}

std::vector<double> radii(const Rows& rows, const Tensor& centre, int64_t k) {
  std::vector<double> all(size_t(rows.size()), 0.0);
  for_blocks(rows, rows, centre, [&](int64_t first, int64_t count, const double* d) {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) all[size_t(first + r)] = radius(rows, first + r, d + r * rows.size(), k);
    });
  });
  return all;
}

/// Returns where a distance lies: -1 within a ball, 0 on its surface, 1 outside.
int side(double distance, double radius, double band, const Rows& a, int64_t i, const Rows& b, int64_t j) {
  if (std::abs(distance - radius) <= band) distance = exact(a, i, b, j);
  return distance < radius ? -1 : distance > radius ? 1 : 0;
}

double share(const std::vector<std::atomic<bool>>& flags) {
  int64_t count = 0;
  for (const auto& flag : flags) count += flag;
  return double(count) / double(flags.size());
}

}  // namespace

ManifoldScores manifold_scores(const Tensor& real_features, const Tensor& fake_features, int64_t k) {
  if (real_features.dim() != 2 || fake_features.dim() != 2 || real_features.size(1) != fake_features.size(1))
    throw std::invalid_argument("the sets that are compared have features of different widths");
  if (k < 1 || std::min(real_features.size(0), fake_features.size(0)) <= k)
    throw std::invalid_argument(
        fmt::format("neighbour {} of sets of {} and {} does not exist", k, real_features.size(0), counted(fake_features.size(0), "row")));
  const Tensor centre = real_features.to(at::kCPU).mean(0, false, at::kDouble);
  const Rows real(real_features, centre), fake(fake_features, centre);
  const std::vector<double> of_real = radii(real, centre, k), of_fake = radii(fake, centre, k);
  std::vector<std::atomic<bool>> precise(size_t(fake.size())), recalled(size_t(real.size())), covered(size_t(real.size()));
  std::vector<int64_t> balls(size_t(fake.size()), 0);
  for_blocks(fake, real, centre, [&](int64_t first, int64_t count, const double* d) {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t j = 0; j < real.size(); ++j) {
          const int64_t i = first + r;
          const double distance = d[r * real.size() + j], band = tolerance(fake, i, real, j);
          const int in_real = side(distance, of_real[size_t(j)], band, fake, i, real, j);
          if (in_real <= 0) precise[size_t(i)] = true;
          if (in_real < 0) ++balls[size_t(i)], covered[size_t(j)] = true;
          if (side(distance, of_fake[size_t(i)], band, fake, i, real, j) <= 0) recalled[size_t(j)] = true;
        }
    });
  });
  int64_t all_balls = 0;
  for (const int64_t b : balls) all_balls += b;
  return {share(precise), share(recalled), double(all_balls) / (double(k) * double(fake.size())), share(covered)};
}

}  // namespace brume
