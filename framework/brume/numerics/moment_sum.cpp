#include "brume/numerics/moment_sum.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "brume/config/counted.h"

namespace brume {

void MomentSum::Sums::add(const at::Tensor& rows) {
  const at::Tensor x = rows.to(at::kDouble);
  if (!shift.defined()) {
    shift = x.mean(0);
    sum = at::zeros({x.size(1)}, at::kDouble);
    products = at::zeros({x.size(1), x.size(1)}, at::kDouble);
  }
  const at::Tensor shifted = x - shift;
  sum = sum + shifted.sum(0);
  products.addmm_(shifted.t(), shifted);
}

void MomentSum::add(const at::Tensor& rows) {
  if (rows.dim() != 2 || (width_ >= 0 && rows.size(1) != width_))
    throw std::invalid_argument(fmt::format("moments of {} cannot take rows of {}", counted(width_, "feature"), rows.size(-1)));
  width_ = rows.size(1);
  const at::Tensor host = rows.to(at::kCPU);
  for (int64_t first = 0; first < host.size(0);) {
    const int64_t taken = std::min(block - waiting_count_, host.size(0) - first);
    waiting_.push_back(host.narrow(0, first, taken).clone());
    waiting_count_ += taken, first += taken;
    if (waiting_count_ < block) continue;
    sums_.add(at::cat(waiting_));
    count_ += block;
    waiting_.clear(), waiting_count_ = 0;
  }
}

FeatureStatistics MomentSum::statistics() const {
  if (count() < 2) throw std::invalid_argument(fmt::format("statistics need 2 rows at least, got {}", count()));
  Sums all = sums_;
  if (waiting_count_ > 0) {
    if (all.products.defined()) all.products = all.products.clone();
    all.add(at::cat(waiting_));
  }
  const double n = double(count());
  const at::Tensor mean = all.sum / n;
  return {all.shift + mean, (all.products - at::outer(mean, mean) * n) / (n - 1)};
}

}  // namespace brume
