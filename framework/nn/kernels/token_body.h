// The body of token_kernel.h, included once per instruction set within a namespace of its own. Plain loops that the compiler turns into
// vectors.

#include "nn/kernels/numbers.h"

/// Phi(x), the normal distribution's function, and phi(x), its density: erf by Abramowitz & Stegun 1964, 7.1.26, within 1.5e-7.
struct Normal {
  float below, density;
};
inline Normal normal(float x) {
  const float z = __builtin_fabsf(x) * 0.70710678f, t = 1 / (1 + 0.3275911f * z), bell = exp_nonpositive(-z * z);
  const float above = 0.5f * bell * t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  return {x < 0 ? above : 1 - above, 0.39894228f * bell};
}

/// Sixteen sums side by side: the order of additions is the same on every instruction set.
template <class T, class F>
inline float sum(const T* x, int64_t n, const F& of) {
  float parts[16] = {}, total = 0;
  for (int64_t i = 0; i + 16 <= n; i += 16)
    for (int64_t l = 0; l < 16; ++l) parts[l] += of(load<T>(x[i + l]));
  for (int64_t i = n / 16 * 16; i < n; ++i) total += of(load<T>(x[i]));
  for (const float part : parts) total += part;
  return total;
}

template <class T>
void layer_norm(const void* from, void* to, int64_t rows, int64_t width, const float* weight, const float* bias, float eps) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* x = static_cast<const T*>(from) + r * width;
    T* y = static_cast<T*>(to) + r * width;
    const float mean = sum(x, width, [](float v) { return v; }) / float(width);
    const float variance = sum(x, width, [=](float v) { return (v - mean) * (v - mean); }) / float(width);
    const float gain = 1 / __builtin_sqrtf(variance + eps);
    for (int64_t c = 0; c < width; ++c) y[c] = store<T>((load<T>(x[c]) - mean) * gain * weight[c] + bias[c]);
  }
}

template <class T>
void geglu(const void* from, void* to, int64_t rows, int64_t half) {
  for (int64_t r = 0; r < rows; ++r) {
    const T *a = static_cast<const T*>(from) + 2 * r * half, *g = a + half;
    T* y = static_cast<T*>(to) + r * half;
    for (int64_t c = 0; c < half; ++c) {
      const float gate = load<T>(g[c]);
      y[c] = store<T>(load<T>(a[c]) * gate * normal(gate).below);
    }
  }
}

template <class T>
void geglu_gradient(const void* from, const void* gradient, void* to, int64_t rows, int64_t half) {
  for (int64_t r = 0; r < rows; ++r) {
    const T *a = static_cast<const T*>(from) + 2 * r * half, *g = a + half, *dy = static_cast<const T*>(gradient) + r * half;
    T *da = static_cast<T*>(to) + 2 * r * half, *dg = da + half;
    for (int64_t c = 0; c < half; ++c) {
      const float gate = load<T>(g[c]), d = load<T>(dy[c]);
      const Normal n = normal(gate);
      da[c] = store<T>(d * gate * n.below);
      dg[c] = store<T>(d * load<T>(a[c]) * (n.below + gate * n.density));
    }
  }
}

inline constexpr TokenKernels all{{layer_norm<float>, geglu<float>, geglu_gradient<float>},
                                  {layer_norm<uint16_t>, geglu<uint16_t>, geglu_gradient<uint16_t>}};
