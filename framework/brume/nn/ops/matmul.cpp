// Blocks of the left matrix and panels of the right one are copied in the order that a kernel reads them in, which keeps the sums of 12
// rows and 32 columns in registers (Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication"). A panel is multiplied
// as soon as it is copied: a weight is read once from memory.
#include "brume/nn/ops/matmul.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "brume/nn/ops/blocking.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/kernels/matmul_kernel.h"

namespace brume::nn {
namespace {

constexpr int64_t most_depth = 768, most_rows = 384;  // of a block of the left matrix, for the second cache

const kernels::MatmulKernel* kernel() {
#if defined(__x86_64__)
  if (isa() >= Isa::avx512) return &kernels::matmul_avx512();
  if (isa() == Isa::avx2) return &kernels::matmul_avx2();
#endif
  return nullptr;
}

/// Returns the size of `parts` about equal parts of n, of which none is larger than `most`.
int64_t part_of(int64_t n, int64_t most) { return quotient_up(n, quotient_up(n, most)); }

/// A product that is under way.
struct Product {
  const kernels::MatmulKernel& kernel;
  const Matrix &a, &b;
  float* c;
  int64_t depth = part_of(b.rows, most_depth), rows = part_of(a.rows, most_rows);
  int64_t panels = quotient_up(b.columns, kernel.panel), blocks = quotient_up(a.rows, rows);

  /// Memory of one thread.
  struct Scratch {
    explicit Scratch(const Product& p)
        : left((p.rows + p.kernel.together) * p.depth), right(p.depth * p.kernel.panel), edge(p.rows * p.kernel.panel) {}
    AlignedFloats left, right, edge;
  };

  /// Computes a block of rows in the panels [begin, end).
  void compute(int64_t block, int64_t begin, int64_t end, const Scratch& own) const {
    const int64_t panel = kernel.panel, width = b.columns, first = block * rows, count = std::min(rows, a.rows - first);
    float* const to = c + first * width;
    for (int64_t d = 0; d < b.rows; d += depth) {
      const int64_t n = std::min(depth, b.rows - d);
      kernel.pack_left(a.data + first * a.row_step + d * a.column_step, a.row_step, a.column_step, count, n, own.left.begin);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t column = p * panel, columns = std::min(panel, width - column);
        kernel.pack_right(b.data + d * b.row_step + column * b.column_step, b.row_step, b.column_step, n, columns, own.right.begin);
        const bool whole = columns == panel;
        kernel.multiply(count, own.left.begin, own.right.begin, n, whole ? to + column : own.edge.begin, whole ? width : panel, d == 0);
      }
    }
    const int64_t rest = end * panel > width ? width % panel : 0;  // of the last panel, which is not whole
    for (int64_t i = 0; i < count && rest > 0; ++i)
      std::memcpy(to + (i + 1) * width - rest, own.edge.begin + i * panel, size_t(rest) * sizeof(float));
  }
};

void add_bias(const float* bias, float* c, int64_t rows, int64_t columns) {
  at::parallel_for(0, rows, quotient_up(1 << 14, columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t n = 0; n < columns; ++n) c[i * columns + n] += bias[n];
  });
}

}  // namespace

bool matmul_fits() { return kernel() != nullptr; }

void matmul(const Matrix& a, const Matrix& b, const float* bias, float* c) {
  const kernels::MatmulKernel* const own_kernel = kernel();
  if (!own_kernel) throw std::logic_error("a product of matrices on a processor without a kernel for it");
  const Product product{*own_kernel, a, b, c};
  at::parallel_for(0, product.blocks * product.panels, 1, [&](int64_t begin, int64_t end) {
    const Product::Scratch own(product);
    while (begin < end) {  // what is left of a block of rows, or of the part of this thread
      const int64_t panel = begin % product.panels, count = std::min(product.panels - panel, end - begin);
      product.compute(begin / product.panels, panel, panel + count, own);
      begin += count;
    }
  });
  if (bias) add_bias(bias, c, a.rows, b.columns);
}

void column_sums(const Matrix& a, float* sums) {
  constexpr int64_t together = 64, rows = 256;  // sums of 256 rows are added, so that long ones keep their digits
  at::parallel_for(0, quotient_up(a.columns, together), 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part * together, count = std::min(together, a.columns - first);
      std::fill_n(sums + first, count, 0.0f);
      for (int64_t r = 0; r < a.rows; r += rows) {
        float some[together] = {};
        for (int64_t i = r; i < std::min(a.rows, r + rows); ++i)
          for (int64_t n = 0; n < count; ++n) some[n] += a.data[i * a.row_step + first + n];
        for (int64_t n = 0; n < count; ++n) sums[first + n] += some[n];
      }
    }
  });
}

}  // namespace brume::nn
