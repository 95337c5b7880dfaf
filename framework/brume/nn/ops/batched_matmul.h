#pragma once
#include "brume/core/tensor.h"

namespace brume::nn {

/// Returns scale a b for each of G matrices, summed in float32 (float64: in that). a: [G, M, K], b: [G, K, N], of one type, in any order in
/// memory. The result is [G, M, N] in `type`.
Tensor batched_matmul(const Tensor& a, const Tensor& b, at::ScalarType type, double scale = 1);

/// Returns true if numbers of that type are multiplied as they are on the CPU.
bool has_batched_matmul(at::ScalarType type);

}  // namespace brume::nn
