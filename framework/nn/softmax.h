#pragma once
// Softmax over whole rows of scores, with its gradient: what attention that learns is made of.
#include "core/tensor.h"

namespace brume::nn {

/// softmax over the last dimension of scores, float32 or float64; the result has the type asked for, which is one of the networks'.
Tensor softmax(const Tensor& scores, at::ScalarType type);

/// scale p (dp - sum_j p_j dp_j), the gradient by scores of which p is the softmax, times scale; in the type of p. dp: as the scores.
Tensor softmax_gradient(const Tensor& p, const Tensor& dp, double scale);

}  // namespace brume::nn
