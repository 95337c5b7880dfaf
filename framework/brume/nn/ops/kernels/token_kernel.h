#pragma once
// What is done to each single row, or each single value, over dense rows; one table of functions per instruction set. No torch: the files
// that include this are compiled for their own.
#include <cstdint>

namespace brume::nn::kernels {

/// Rows of the table's element type; each is computed in float32 and depends on nothing else.
struct TokenKernel {
  /// y = (x - mean) / sqrt(var + eps) * weight + bias, over the `width` values of each row.
  void (*layer_norm)(const void* x, void* y, int64_t rows, int64_t width, const float* weight, const float* bias, float eps);

  /// y = a gelu(g), x = [a, g] with `half` values each; gelu(g) = g Phi(g).
  void (*geglu)(const void* x, void* y, int64_t rows, int64_t half);

  /// dx = [dy gelu(g), dy a (Phi(g) + g phi(g))].
  void (*geglu_gradient)(const void* x, const void* dy, void* dx, int64_t rows, int64_t half);

  /// y = x s, s = 1 / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3): gelu by the hyperbolic tangent.
  void (*gelu_tanh)(const void* x, void* y, int64_t rows, int64_t width);

  /// dx = dy (s + 2 x s (1 - s) du/dx).
  void (*gelu_tanh_gradient)(const void* x, const void* dy, void* dx, int64_t rows, int64_t width);

  /// p = softmax(s) over the `width` float32 scores of each row.
  void (*softmax)(const float* s, void* p, int64_t rows, int64_t width);

  /// ds = scale p (dp - sum p dp), dp in float32.
  void (*softmax_gradient)(const void* p, const float* dp, void* ds, int64_t rows, int64_t width, float scale);

  /// y = x, from float16.
  void (*from_half)(const uint16_t* x, void* y, int64_t count);

  /// y = x / (1 - p) for the share 1 - p of `count` values from value `first` on, else 0: places and seed alone decide which. `offset`: the
  /// place of value 0.
  void (*dropout)(const void* x, void* y, int64_t first, int64_t count, int64_t offset, float p, uint64_t seed);
};

struct TokenKernels {
  TokenKernel float32;
  TokenKernel bfloat16;
};

const TokenKernels& tokens_generic();
#if defined(__x86_64__)
const TokenKernels& tokens_avx2();
const TokenKernels& tokens_avx512();
#endif

}  // namespace brume::nn::kernels
