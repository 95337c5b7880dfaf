#include "brume/nn/ops/fir_filter.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/stack.h>

#include <numeric>
#include <stdexcept>

#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

Tensor padded(const Tensor& x, int64_t before, int64_t after) {
  return at::constant_pad_nd(x, std::vector<int64_t>{before, after, before, after}, 0);
}

/// Returns sum_k taps[k] x[2m + k] along a dimension.
Tensor halved(const Tensor& x, int64_t dim, const std::vector<double>& taps) {
  const int64_t length = int64_t(taps.size()), count = (x.size(dim) - length) / 2 + 1;
  Tensor sum;
  for (int64_t k = 0; k < length; ++k) {
    const Tensor part = x.slice(dim, k, k + 2 * count - 1, 2) * taps[size_t(k)];
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

/// Returns the adjoint of halving, times two, from x with `pad` zeros at both ends: of the values 2m and 2m + 1 each sees every other tap.
Tensor doubled(const Tensor& x, int64_t dim, const std::vector<double>& taps, int64_t pad) {
  const int64_t length = int64_t(taps.size()), margin = (length - 1) / 2, count = x.size(dim) - 2 * pad;
  Tensor phases[2];
  for (int64_t r = 0; r < 2; ++r)
    for (int64_t k = (r + margin) % 2; k < length; k += 2) {
      const Tensor part = x.narrow(dim, pad + (r + margin - k) / 2, count) * (2 * taps[size_t(k)]);
      phases[r] = phases[r].defined() ? phases[r] + part : part;
    }
  return at::stack({phases[0], phases[1]}, dim + 1).flatten(dim, dim + 1);
}

}  // namespace

Filter::Filter(std::vector<double> taps) : taps_(std::move(taps)) {
  const double sum = std::accumulate(taps_.begin(), taps_.end(), 0.0);
  if (taps_.empty() || taps_.size() % 2 != 0 || sum == 0)
    throw std::logic_error("a filter needs an even number of taps that do not cancel");
  for (double& tap : taps_) tap /= sum;
}

Tensor Filter::up(const Tensor& x) const {
  if (averages()) return upsample(x);
  const int64_t pad = int64_t(taps_.size()) / 2;
  return doubled(doubled(padded(x, pad, pad), 2, taps_, pad), 3, taps_, pad);
}

Tensor Filter::down(const Tensor& x) const { return averages() ? downsample(x) : down_within(padded(x, margin(), margin())); }

Tensor Filter::down_within(const Tensor& x) const {
  if (averages()) return downsample(x);
  return halved(halved(x, 2, taps_), 3, taps_);
}

}  // namespace brume::nn
