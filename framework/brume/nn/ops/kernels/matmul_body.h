// The body of matmul_kernel.h, included once per instruction set within a namespace of its own.
#include "brume/nn/ops/kernels/product_body.h"

/// Writes [depth, width]: element (d, n) of what is read, whose rows follow each other.
template <int64_t width>
void pack_rows(const float* from, int64_t row_step, int64_t depth, int64_t count, float* to) {
  for (int64_t d = 0; d < depth; ++d, from += row_step, to += width) {
    if (count == width)
      __builtin_memcpy(to, from, width * sizeof(float));
    else
      for (int64_t n = 0; n < width; ++n) to[n] = n < count ? from[n] : 0;
  }
}

/// The same of a matrix whose columns follow each other. Writes up to a vector less one float beyond.
template <int64_t width>
void pack_columns(const float* from, int64_t column_step, int64_t depth, int64_t count, float* to) {
  int64_t d = 0;
  for (; d + lanes <= depth; d += lanes)
    for (int64_t n = 0; n < width; n += lanes) {
      Vector rows[lanes];
      for (int64_t i = 0; i < lanes; ++i) rows[i] = n + i < count ? load_vector(from + (n + i) * column_step + d) : Vector{};
      transpose(rows);
      for (int64_t i = 0; i < lanes; ++i) store_vector(to + (d + i) * width + n, rows[i]);
    }
  for (; d < depth; ++d)
    for (int64_t n = 0; n < width; ++n) to[d * width + n] = n < count ? from[n * column_step + d] : 0;
}

inline void pack_right(const float* b, int64_t row_step, int64_t column_step, int64_t depth, int64_t columns, float* to) {
  if (column_step == 1)
    pack_rows<panel>(b, row_step, depth, columns, to);
  else
    pack_columns<panel>(b, column_step, depth, columns, to);
}

inline void pack_left(const float* a, int64_t row_step, int64_t column_step, int64_t rows, int64_t depth, float* to) {
  for (int64_t r = 0; r < rows; r += together, a += together * row_step, to += together * depth) {
    const int64_t count = rows - r < together ? rows - r : together;
    if (row_step == 1)
      pack_rows<together>(a, column_step, depth, count, to);
    else
      pack_columns<together>(a, row_step, depth, count, to);
  }
}

inline void multiply(int64_t rows, const float* a, const float* b, int64_t depth, float* c, int64_t c_step, bool begin) {
  for (int64_t r = 0; r < rows; r += together, a += together * depth)
    multiplies<true>[(rows - r < together ? rows - r : together) - 1](a, together, b, depth, c + r * c_step, c_step, begin);
}

constexpr MatmulKernel all{panel, together, pack_left, pack_right, multiply};
