#pragma once
// Differences between the versions of LibTorch that brume builds with, 1.13 and 2.
#include <ATen/core/Tensor.h>
#include <torch/version.h>

#if TORCH_VERSION_MAJOR >= 2
#include <ATen/ops/scaled_dot_product_attention.h>

#include <optional>
#endif

#if TORCH_VERSION_MAJOR >= 2
/// How c10::Allocator::allocate is qualified.
#define BRUME_ALLOCATE_CONST
/// A member that a c10::Allocator must have.
#define BRUME_ALLOCATOR_COPIES \
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
#else
#define BRUME_ALLOCATE_CONST const
#define BRUME_ALLOCATOR_COPIES
#endif

namespace brume {

/// Returns softmax(q k^T / sqrt(d) + bias) v by LibTorch's own attention, which chooses the fastest on the device; undefined before
/// 2.0. Sizes as in nn::attention; bias: [B or 1, 1, 1 or N, M] or undefined.
inline at::Tensor library_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias) {
#if TORCH_VERSION_MAJOR >= 2
  return at::scaled_dot_product_attention(q, k, v, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
#else
  static_cast<void>(q), static_cast<void>(k), static_cast<void>(v), static_cast<void>(bias);
  return {};
#endif
}

}  // namespace brume
