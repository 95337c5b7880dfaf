#pragma once
// Numbers that Python repeats in one line, for weights whose results another program computes.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>

#include <vector>

#include "brume/core/tensor.h"

namespace brume::test {

/// Returns sin(step i) in float32, i the flat index.
inline Tensor waves(const std::vector<int64_t>& shape, double step) {
  int64_t count = 1;
  for (const int64_t n : shape) count *= n;
  return (at::arange(count, at::kDouble) * step).sin().view(shape).to(at::kFloat);
}

}  // namespace brume::test
