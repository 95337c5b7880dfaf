#pragma once
// The operations every network calls, never torch's own directly: a faster path can be put under them. All are
// differentiable, take any device, and on the CPU give image i the same bits whatever the batch (design.md, 9).
#include "core/tensor.h"

namespace brume::nn {

/// Convolution. x: [B, C, H, W]; weight: [O, C, k, k] or [O, C, k] (as k x 1); bias: [O] or undefined. Weights are cast to the
/// dtype of x.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride = 1, int64_t padding = 0);

/// x: [B, K] or [B, N, K]; weight: [M, K]; bias: [M] or undefined. Returns [B, M] or [B, N, M].
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias);

/// softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1). q: [B, heads, N, d]; k, v: [B, heads, M, d]. Softmax in float32.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v);

Tensor silu(const Tensor& x);
Tensor relu(const Tensor& x);

/// The channels of `a`, then those of `b`: [B, Ca, H, W] and [B, Cb, H, W] to [B, Ca + Cb, H, W].
Tensor concat(const Tensor& a, const Tensor& b);

/// Twice the height and width, by nearest neighbour.
Tensor upsample(const Tensor& x);
/// Half the height and width, by the mean of 2 x 2.
Tensor downsample(const Tensor& x);

/// Zeroes each value with probability p and scales the rest by 1 / (1 - p); nothing where `random` is null.
Tensor dropout(const Tensor& x, double p, at::Generator* random);

}  // namespace brume::nn
