#pragma once
// Convolutions of bfloat16 on the tiles of AMX (kernels/tile_conv_kernel.h): 1x1, so linear layers as well, and 3x3, with stride 1.
#include "brume/core/tensor.h"

namespace brume::nn {

/// What is computed: the convolution, or one of its gradients.
enum class TilePass { forward, by_x, by_weight };

/// Returns true if a convolution of images [., C, ., .] in this type with a weight [O, C, k, k] computes this pass on tiles: the
/// gradients of less than 128 channels, which were measured to win. The environment variable BRUME_TILES turns all passes on (1) and off
/// (0).
bool tile_conv_fits(TilePass pass, at::ScalarType type, const Tensor& weight, int64_t stride, int64_t padding);

/// Weights in the order that the kernel reads.
struct TileWeight {
  Tensor stored;  ///< [pairs of tiles of output channels, steps, 2, 16, 32] bfloat16
  int64_t channels = 0, out = 0, kernel = 0;
};

/// weight: [O, C, k, k], any floating type and strides. `gradient`: the weight of the gradient by x, which is a convolution of the gradient
/// by the result. `memory`: gives so many bytes.
TileWeight tile_weight(const Tensor& weight, bool gradient, Tensor (*memory)(size_t));

/// y = x * weight + bias + sum, rounded once. x, y, sum: [B, ., H, W] bfloat16, channels last; bias: [O], any floating type; sum and bias
/// may be undefined, and `sum` may be `y`. The bits of an image depend neither on the batch nor on the threads.
void tile_conv2d(const Tensor& x, const TileWeight& weight, const Tensor& bias, const Tensor& sum, const Tensor& y);

/// Writes the gradients by the weight and the bias. x: [B, C, H, W], dy: [B, O, H, W], both bfloat16, channels last; dw: [O, C, k, k]
/// float32, any strides; db: [O] float32, may be undefined. The bits do not depend on the threads.
void tile_conv_gradient(const Tensor& x, const Tensor& dy, const Tensor& dw, const Tensor& db);

}  // namespace brume::nn
