#pragma once
// Transposed squares of vectors, on any instruction set.
#include <cstddef>
#include <utility>

namespace brume::nn::kernels {
namespace {

template <size_t step, class Values, size_t... l>
inline void exchange(Values& a, Values& b, std::index_sequence<l...>) {
  constexpr size_t lanes = sizeof...(l);
  const Values x = __builtin_shufflevector(a, b, (l & step ? lanes + l - step : l)...);
  b = __builtin_shufflevector(a, b, (l & step ? lanes + l : l + step)...);
  a = x;
}

/// Transposes as many vectors as one has values of 32 bits: exchanges the halves of pairs of rows that are 1, 2, 4 … apart.
template <size_t step = 1, class Vector>
inline void transpose(Vector* rows) {
  constexpr size_t lanes = sizeof(Vector) / sizeof(int);
  typedef int Values __attribute__((vector_size(sizeof(Vector)), may_alias));
  Values* const values = reinterpret_cast<Values*>(rows);
#pragma GCC unroll 16
  for (size_t i = 0; i < lanes; ++i)
    if (!(i & step)) exchange<step>(values[i], values[i + step], std::make_index_sequence<lanes>());
  if constexpr (2 * step < lanes) transpose<2 * step>(rows);
}

}  // namespace
}  // namespace brume::nn::kernels
