#pragma once
#include "brume/core/tensor.h"

namespace brume::nn {

/// Returns a convolution whose weights learn, by oneDNN: forward and both gradients read the weights as they are, and those of the weight
/// and the bias are summed in float32. x: [B, C, H, W] channels last on the CPU, float32 or bfloat16; weight: [O, C, k, k]; bias: [O] or
/// undefined; both of any type. Returns channels last, in the type of x. Differentiable any number of times.
Tensor training_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding);

}  // namespace brume::nn
