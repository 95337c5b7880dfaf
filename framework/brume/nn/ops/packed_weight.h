#pragma once
// Weights in the order that oneDNN computes with. LibTorch's convolution turns them into it at every call; here that is done once, for as
// long as they stay what they are.
#include <cstdint>
#include <memory>

#include "brume/core/tensor.h"

namespace brume::nn {

/// Returns true if what is computed in this type on the CPU is computed from packed weights, if nothing is recorded.
bool packing(at::ScalarType type);

/// What a layer keeps with its weight. Safe to use from several threads; copies of a layer share it.
class PackedWeight {
 public:
  PackedWeight();
  ~PackedWeight();
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;

  /// Returns the convolution of x, [B, C, H, W] channels last on the CPU, float32 or bfloat16, with the weight [O, C, k, k] of any type,
  /// which is packed again if it is another tensor than before or was written to. bias: [O] or undefined. Returns channels last. `sum`:
  /// what the result is added to; undefined = nothing. Its memory may be used if nothing else holds it.
  Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding, Tensor sum = {}) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace brume::nn
