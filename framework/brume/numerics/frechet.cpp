#include "brume/numerics/frechet.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cdist.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "brume/config/counted.h"

namespace brume {
namespace {

at::Tensor symmetrised(const at::Tensor& m) { return (m + m.t()) * 0.5; }

/// Returns the square root of a symmetric positive semi-definite matrix; what rounding made negative is 0.
at::Tensor square_root(const at::Tensor& m) {
  const auto [values, vectors] = at::linalg_eigh(symmetrised(m));
  return at::mm(vectors * values.clamp_min(0).sqrt(), vectors.t());
}

double trace(const at::Tensor& m) { return m.diagonal().sum().item<double>(); }

}  // namespace

FeatureStatistics feature_statistics(const at::Tensor& features) {
  if (features.dim() != 2 || features.size(0) < 2)
    throw std::invalid_argument(fmt::format("statistics need features [N, F] with N >= 2, got [{}]", fmt::join(features.sizes(), ", ")));
  const at::Tensor x = features.to(at::kCPU, at::kDouble);
  FeatureStatistics s;
  s.mean = x.mean(0);
  const at::Tensor centred = x - s.mean;
  s.covariance = at::mm(centred.t(), centred) / double(x.size(0) - 1);
  return s;
}

double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  if (a.mean.sizes() != b.mean.sizes())
    throw std::invalid_argument(
        fmt::format("features of {} and of {} cannot be compared", a.mean.numel(), counted(b.mean.numel(), "dimension")));
  const at::Tensor root = square_root(a.covariance);
  const at::Tensor product = at::mm(at::mm(root, b.covariance), root);
  const at::Tensor values = std::get<0>(at::linalg_eigh(symmetrised(product)));
  const double cross = values.clamp_min(0).sqrt().sum().item<double>();
  const double means = (a.mean - b.mean).square().sum().item<double>();
  return std::max(0.0, means + trace(a.covariance) + trace(b.covariance) - 2 * cross);
}

std::vector<double> class_spread(const at::Tensor& features, const std::vector<int64_t>& labels, int64_t classes) {
  std::vector<double> spread;
  for (int64_t c = 0; c < classes; ++c) {
    std::vector<int64_t> rows;
    for (size_t i = 0; i < labels.size(); ++i)
      if (labels[i] == c) rows.push_back(int64_t(i));
    const int64_t n = int64_t(rows.size());
    if (n < 2) {
      spread.push_back(std::numeric_limits<double>::quiet_NaN());
      continue;
    }
    const at::Tensor x = features.index_select(0, at::tensor(rows)).to(at::kDouble);
    double sum = 0;  // over ordered pairs, some rows at a time; differences themselves, not products (compute mode 2)
    constexpr int64_t step = 256;
    for (int64_t i = 0; i < n; i += step) sum += at::cdist(x.narrow(0, i, std::min(step, n - i)), x, 2.0, 2).sum().item<double>();
    spread.push_back(sum / (double(n) * double(n - 1)));
  }
  return spread;
}

}  // namespace brume
