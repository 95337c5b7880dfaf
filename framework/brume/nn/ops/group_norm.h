#pragma once
// Group normalisation, scale and shift, and SiLU as one operation, forward and backward.
//
//   xhat = (x + added - mean) / sqrt(variance + eps)      over the channels of one group and all positions, for each image
//   z    = (xhat * gamma + beta) * (1 + scale) + shift
//   y    = z * sigmoid(z)  or  z
//
// Group normalisation: Wu & He 2018 (arXiv:1803.08494). Scale and shift from an embedding ("adaptive group normalisation"): Dhariwal &
// Nichol 2021, section 3 (arXiv:2105.05233). SiLU: Elfwing et al. 2017 (arXiv:1702.03118).

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace brume::nn {

/// x:            [B, C, H, W] or [B, C, N], floating point, groups dividing C.
/// gamma, beta:  [C], any floating dtype.
/// scale, shift: [B, C], any floating dtype; both or neither.
/// added:        [B, C], any floating dtype, or undefined: an embedding, added to x at every position.
/// Returns x's shape and dtype: [B, C, H, W] in channels-last memory, [B, C, N] strided as [B, N, C].
///
/// On the CPU, bfloat16 and float32 run in one kernel over channels-last memory (anything else is first copied into it); the bits of an
/// image's result and of its gradient depend neither on the rest of the batch nor on threads. Statistics are float32 partial sums
/// gathered in double. Other dtypes and devices take plain ATen operations, with statistics in float64 for float64 and float32 otherwise.
/// Differentiable in x, gamma, beta, scale, shift and added, gradients being of the dtype of their input; any number of times.
///
/// Throws std::invalid_argument, with both shapes, if they do not fit.
at::Tensor group_norm_silu(const at::Tensor& x, std::int64_t groups, const at::Tensor& gamma, const at::Tensor& beta, double eps, bool silu,
                           const at::Tensor& scale = {}, const at::Tensor& shift = {}, const at::Tensor& added = {});

}  // namespace brume::nn
