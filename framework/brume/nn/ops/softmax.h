#pragma once
// What kernels do to whole rows besides the operations of networks (ops.h).
#include "brume/core/tensor.h"

namespace brume::nn {

/// Returns softmax over the last dimension of scores, float32 or float64; the result has the type asked for, which is one of the networks'.
Tensor softmax(const Tensor& scores, at::ScalarType type);

/// Returns scale p (dp - sum_j p_j dp_j), the gradient by scores of which p is the softmax, times scale; in the type of p. dp: as the
/// scores.
Tensor softmax_gradient(const Tensor& p, const Tensor& dp, double scale);

/// Returns x, float16, as another of the networks' types; dense as x is. LibTorch's own conversion takes values one by one (1.13.1).
Tensor from_half(const Tensor& x, at::ScalarType type);

}  // namespace brume::nn
