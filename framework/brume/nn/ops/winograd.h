#pragma once
// 3x3 convolutions in float32 with a quarter of the multiplications (Winograd's F(4x4, 3x3), kernels/winograd_kernel.h).
#include "brume/core/tensor.h"
#include "brume/nn/ops/kernels/winograd_kernel.h"

namespace brume::nn {

/// Returns true if a convolution of images [., C, H, W] in this type with a weight [O, C, k, k] is computed this way. Does not depend on
/// the number of images. The environment variable BRUME_WINOGRAD turns it on (1; without it on AVX2 alone) and off (0).
bool winograd_fits(at::ScalarType type, int64_t height, int64_t width, const Tensor& weight, int64_t stride, int64_t padding);

/// Weights in the order that the kernel reads; two bytes each if they are float16 or bfloat16.
struct WinogradWeight {
  Tensor stored;  ///< [panels, C, 9, panel]
  kernels::StoredAs type = kernels::StoredAs::float32;
  int64_t channels = 0, out = 0;
};

/// Returns a weight transformed for winograd_conv2d(). weight: [O, C, 3, 3], any type and strides. `memory`: gives so many bytes.
WinogradWeight winograd_weight(const Tensor& weight, Tensor (*memory)(size_t));

/// Returns the weight of the gradient by x, which is a convolution of the gradient by the result: channels exchanged, turned by half a
/// turn.
WinogradWeight winograd_gradient_weight(const Tensor& weight, Tensor (*memory)(size_t));

/// Computes y = x * weight + bias + sum, with stride 1 and padding 1. x, y, sum: [B, ., H, W] float32, channels last; bias: [O] float32;
/// sum and bias may be undefined, and `sum` may be `y`. The bits of an image depend neither on the batch nor on the threads.
void winograd_conv2d(const Tensor& x, const WinogradWeight& weight, const Tensor& bias, const Tensor& sum, const Tensor& y);

/// Returns true if the gradient by a weight is computed by winograd_gradient(): for what winograd_fits(), unless many channels
/// have few pixels. Does not depend on the number of images.
bool winograd_gradient_fits(const Tensor& x, const Tensor& weight, int64_t stride, int64_t padding);

/// Writes the gradients by the weight and the bias of a convolution with stride 1 and padding 1. x: [B, C, H, W], dy: [B, O, H, W], both
/// float32, channels last; dw: [O, C, 3, 3] float32, any strides; db: [O] float32, may be undefined. The bits do not depend on the threads.
void winograd_gradient(const Tensor& x, const Tensor& dy, const Tensor& dw, const Tensor& db);

}  // namespace brume::nn
