#pragma once
// Blocking of a computation: cutting it into parts, aligned memory for them, and sharing the parts among threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#include "brume/core/tensor.h"

namespace brume::nn {

/// Returns n / by, rounded up.
inline int64_t quotient_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

/// Returns the first element of a tensor; null if the tensor is undefined.
template <class T>
T* data_or_null(const Tensor& t) {
  return t.defined() ? static_cast<T*>(t.data_ptr()) : nullptr;
}

/// Holds floats that begin at a cache line.
struct AlignedFloats {
  explicit AlignedFloats(int64_t count) : memory(at::empty({count + 16}, at::TensorOptions().dtype(at::kFloat))) {
    begin = data_or_null<float>(memory) + (64 - reinterpret_cast<uintptr_t>(memory.data_ptr()) % 64) % 64 / sizeof(float);
  }
  Tensor memory;
  float* begin;
};

/// Calls task(row, column) for all, shared among threads; each takes whole rows if there are enough.
template <class Task>
void for_grid(int64_t rows, int64_t columns, const Task& task) {
  at::parallel_for(0, rows * columns, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) task(i / columns, i % columns);
  });
}

}  // namespace brume::nn
