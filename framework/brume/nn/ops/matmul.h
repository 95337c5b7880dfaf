#pragma once
// Products of two matrices in float32, of layers that learn: weights are read as they lie, since the next step changes them.
#include <cstdint>

#include "brume/core/tensor.h"

namespace brume::nn {

/// A matrix in memory. One of its steps is 1.
struct Matrix {
  const float* data;
  int64_t rows, columns;
  int64_t row_step, column_step;  ///< floats between two rows, and between two columns

  Matrix transposed() const { return {data, columns, rows, column_step, row_step}; }
};

/// Returns true if the processor has a kernel for them.
bool matmul_fits();

/// Writes a b + bias to c [a.rows, b.columns], whose rows follow each other. bias: [b.columns], or null. Each element is summed in an
/// order that depends on a.columns alone: it has the same bits whatever the other rows and the number of threads.
void matmul(const Matrix& a, const Matrix& b, const float* bias, float* c);

/// Writes the sums of the columns of a matrix with column_step 1. The order of each sum depends on the number of rows alone.
void column_sums(const Matrix& a, float* sums);

}  // namespace brume::nn
