#pragma once
// Products of eight-bit integers (kernels/int8_kernel.h) for layers that are only evaluated.
#include <memory>

#include "brume/core/int8_values.h"
#include "brume/core/tensor.h"

namespace brume::nn {

/// Integers in the order that the kernels read, which is that of every instruction set.
struct Int8Weight {
  Tensor panels, scales, totals;
  int64_t channels, out, kernel;
};

/// Returns true if a weight [O, C, k, k], [O, C, k] or [O, C] can be multiplied so: square windows, sums within int32.
bool int8_fits(const Tensor& weight);

/// Returns a weight as int8_conv2d() reads it. values: of a weight that fits.
Int8Weight int8_weight(const Int8Values& values);

/// Returns the convolution of x, [B, C, H, W] float32, channels last on the CPU. bias: [O] or undefined; `sum`: what is added, undefined =
/// nothing. The result is channels last. A row that holds NaN or Inf gives NaN.
Tensor int8_conv2d(const Tensor& x, const Int8Weight& weight, const Tensor& bias, int64_t stride, int64_t padding, const Tensor& sum = {});

}  // namespace brume::nn
