#pragma once
// What winograd.cpp and winograd_gradient.cpp share.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#include "brume/core/tensor.h"

namespace brume::nn {

inline int64_t quotient_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

/// Returns null of an undefined tensor.
inline float* winograd_data(const Tensor& t) { return t.defined() ? static_cast<float*>(t.data_ptr()) : nullptr; }

/// Memory that begins at a cache line.
struct Floats {
  explicit Floats(int64_t count) : memory(at::empty({count + 16}, at::TensorOptions().dtype(at::kFloat))) {
    begin = winograd_data(memory) + (64 - reinterpret_cast<uintptr_t>(memory.data_ptr()) % 64) % 64 / sizeof(float);
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
