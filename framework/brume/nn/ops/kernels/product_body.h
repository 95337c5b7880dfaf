// Products of matrices in float32 with the columns of the right one in panels; included once per instruction set within a namespace of its
// own. Each element is summed in the order of the depth, wherever it lies.

#include "brume/nn/ops/kernels/vectors.h"

constexpr int64_t panel = 2 * lanes;
constexpr int64_t together = lanes == 16 ? 12 : 6;  // rows, as many as there are registers for the sums of a panel

/// m [n, panel] (+)= a b, of a [n, depth] (transposed: [depth, n]) and b [depth, panel]. The sums of this depth are added at its end.
template <int n, bool transposed>
void multiply_rows(const float* a, int64_t a_step, const float* b, int64_t depth, float* m, int64_t m_step, bool begin) {
  Vector left[n] = {}, right[n] = {};
  for (int64_t d = 0; d < depth; ++d) {
    const Vector p = load_vector(b + d * panel), q = load_vector(b + d * panel + lanes);
#pragma GCC unroll 12
    for (int r = 0; r < n; ++r) {
      const float x = transposed ? a[d * a_step + r] : a[r * a_step + d];
      left[r] += x * p;
      right[r] += x * q;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < n; ++r) {
    float* const to = m + r * m_step;
    store_vector(to, begin ? left[r] : load_vector(to) + left[r]);
    store_vector(to + lanes, begin ? right[r] : load_vector(to + lanes) + right[r]);
  }
}

using MultiplyRows = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t, bool);
template <bool t>
constexpr MultiplyRows multiplies[] = {multiply_rows<1, t>,  multiply_rows<2, t>, multiply_rows<3, t>, multiply_rows<4, t>,
                                       multiply_rows<5, t>,  multiply_rows<6, t>,
#if defined(__AVX512F__)
                                       multiply_rows<7, t>,  multiply_rows<8, t>, multiply_rows<9, t>, multiply_rows<10, t>,
                                       multiply_rows<11, t>, multiply_rows<12, t>
#endif
};

/// The same for any number of rows, in groups of about equal size.
template <bool transposed>
void multiply_all(int64_t rows, const float* a, int64_t a_step, const float* b, int64_t depth, float* m, int64_t m_step, bool begin) {
  const int64_t groups = (rows + together - 1) / together;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = rows * g / groups, n = rows * (g + 1) / groups - first;
    multiplies<transposed>[n - 1](a + first * (transposed ? 1 : a_step), a_step, b, depth, m + first * m_step, m_step, begin);
  }
}
