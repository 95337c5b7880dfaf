#pragma once
// The operations every network calls, never torch's own directly: a faster path can be put under them. All are
// differentiable, take any device, and on the CPU give image i the same bits whatever the batch (design.md, 9).
#include "brume/core/tensor.h"

namespace brume::nn {

class PackedWeight;

/// Returns the convolution of x. x: [B, C, H, W]; weight: [O, C, k, k] or [O, C, k] (as k x 1); bias: [O] or undefined. Weights are cast to
/// the dtype of x. `packed`: what is kept with the weight, used if nothing is recorded and the weight does not learn. `sum`: what the
/// result is added to, of its shape and dtype; undefined = nothing. The memory of one that nothing else holds (std::move) may become the
/// result's.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride = 1, int64_t padding = 0,
              const PackedWeight* packed = nullptr, Tensor sum = {});

/// Returns x weight^T + bias + sum, [B, M] or [B, N, M]. x: [B, K] or [B, N, K]; weight: [M, K]; bias: [M] or undefined; `packed`, `sum`:
/// as for conv2d().
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const PackedWeight* packed = nullptr, Tensor sum = {});

/// Which keys a query sees.
struct AttentionMask {
  Tensor keys{};        ///< [B, M] float32, 1 = seen, 0 = padding; undefined = all
  bool causal = false;  ///< query i sees the keys up to i
};

/// Returns softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1). q: [B, heads, N, d]; k, v: [B, heads, M, d]. Softmax in float32. A
/// query that sees no key gets the mean of the values.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask = {});

/// Returns the layer normalisation (Ba et al. 2016) of the last dimension, statistics in float32. weight, bias: [C].
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps = 1e-5);

Tensor silu(const Tensor& x);
Tensor relu(const Tensor& x);
/// Returns x if it is positive, else slope x.
Tensor leaky_relu(const Tensor& x, double slope);
/// Returns x Phi(x) (Hendrycks & Gimpel 2016), by the error function.
Tensor gelu(const Tensor& x);
/// Returns the first half of the channels times gelu of the second (Shazeer 2020). x: [..., 2C]; returns [..., C].
Tensor geglu(const Tensor& x);
/// Returns x sigmoid(1.702 x), CLIP's.
Tensor quick_gelu(const Tensor& x);

/// Returns the channels of `a`, then those of `b`: [B, Ca, H, W] and [B, Cb, H, W] to [B, Ca + Cb, H, W].
Tensor concat(const Tensor& a, const Tensor& b);

/// Returns twice the height and width, by nearest neighbour.
Tensor upsample(const Tensor& x);
/// Returns this height and width, by nearest neighbour.
Tensor upsample(const Tensor& x, int64_t height, int64_t width);
/// Returns half the height and width, by the mean of 2 x 2.
Tensor downsample(const Tensor& x);

/// Zeroes each value with probability p and scales the rest by 1 / (1 - p); nothing if `random` is null.
Tensor dropout(const Tensor& x, double p, at::Generator* random);

}  // namespace brume::nn
