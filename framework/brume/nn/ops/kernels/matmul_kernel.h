#pragma once
// Products of matrices in float32. No torch: the files that include this are compiled for their own instruction set.
#include <cstdint>

namespace brume::nn::kernels {

struct MatmulKernel {
  int64_t panel;     ///< columns of the right matrix that are multiplied together
  int64_t together;  ///< rows of the left one

  /// Writes `depth` columns of a left matrix, [rows / together, depth, together], with zeros for missing rows. Element (r, d) is
  /// a[r row_step + d column_step]; one of the steps is 1.
  void (*pack_left)(const float* a, int64_t row_step, int64_t column_step, int64_t rows, int64_t depth, float* to);

  /// Writes `columns` <= panel columns of a right matrix, [depth, panel], with zeros for missing columns. Element (d, n) is
  /// b[d row_step + n column_step].
  void (*pack_right)(const float* b, int64_t row_step, int64_t column_step, int64_t depth, int64_t columns, float* to);

  /// c [rows, panel] = a b, or c += a b unless `begin`, of packed matrices. c_step: floats between two rows.
  void (*multiply)(int64_t rows, const float* a, const float* b, int64_t depth, float* c, int64_t c_step, bool begin);
};

#if defined(__x86_64__)
const MatmulKernel& matmul_avx2();
const MatmulKernel& matmul_avx512();
#endif

}  // namespace brume::nn::kernels
