#include "brume/numerics/extra_vector.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/sin.h>

#include <algorithm>
#include <cmath>

namespace brume {

Condition with_vector(const Condition& condition, const Tensor& vector) {
  Condition changed = condition;
  changed.vector = vector;
  if (condition.null) changed.null = std::make_shared<Condition>(with_vector(*condition.null, vector));
  return changed;
}

int64_t vector_width(const Condition& condition) { return condition.vector.defined() ? condition.vector.size(1) : 0; }

Tensor interval_features(const Tensor& h, int64_t width) {
  const int64_t half = width / 2;
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const Tensor frequencies = (at::arange(half, options) * (std::log(64.0) / double(std::max<int64_t>(1, half - 1)))).exp();
  const Tensor angles = h.to(at::kCPU, at::kDouble).unsqueeze(1) * frequencies.unsqueeze(0);
  return at::cat({angles.cos(), angles.sin()}, 1).to(h.device(), at::kFloat);
}

}  // namespace brume
