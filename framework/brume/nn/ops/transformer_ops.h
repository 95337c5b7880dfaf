#pragma once
// Operations of transformers that U-Nets do not have. Differentiable, on any device; on the CPU image i has the same bits whatever the
// batch.
#include "brume/core/tensor.h"

namespace brume::nn {

/// Returns x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang & Sennrich 2019), computed in at least float32.
/// weight: [C], undefined = 1.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps = 1e-6);

/// Returns gelu by the hyperbolic tangent (Hendrycks & Gimpel 2016): x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
Tensor gelu_tanh(const Tensor& x);

/// Returns silu of the first half of the channels times the second half (Shazeer 2020). x: [..., 2C]; returns [..., C].
Tensor swiglu(const Tensor& x);

/// Returns x (1 + scale) + shift (adaptive layer norm). x: [B, N, C]; scale, shift: [B, C].
Tensor modulate(const Tensor& x, const Tensor& scale, const Tensor& shift);

/// Returns modulate(layer_norm(x), scale, shift), in one pass if nothing is recorded.
Tensor modulated_layer_norm(const Tensor& x, const Tensor& scale, const Tensor& shift, double eps);

/// Rotates the pairs of channels (2i, 2i + 1) (Su et al. 2021, eq. 34). x: [B, heads, N, d]; cosines, sines: [N, d / 2] float32.
Tensor rotate(const Tensor& x, const Tensor& cosines, const Tensor& sines);

}  // namespace brume::nn
