// The body of token_kernel.h, included once per instruction set within a namespace of its own. Plain loops that the compiler turns into
// vectors.

#include "brume/nn/ops/kernels/numbers.h"

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

/// s of gelu by the hyperbolic tangent, and the derivative of x s. From 16 on s is 0 or 1 to rounding, and the cube stays finite.
struct TanhGate {
  float gate, slope;
};
inline TanhGate tanh_gate(float x) {
  const float c = x < -16.0f ? -16.0f : x > 16.0f ? 16.0f : x, twice = 1.59576912f * c * (1 + 0.044715f * c * c);
  const float e = exp_nonpositive(-__builtin_fabsf(twice)), inverse = 1 / (1 + e), gate = (twice < 0 ? e : 1.0f) * inverse;
  return {gate, gate + c * e * inverse * inverse * 1.59576912f * (1 + 0.134145f * c * c)};
}

template <class T>
void gelu_tanh(const void* from, void* to, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* x = static_cast<const T*>(from) + r * width;
    T* y = static_cast<T*>(to) + r * width;
    for (int64_t c = 0; c < width; ++c) y[c] = store<T>(load<T>(x[c]) * tanh_gate(load<T>(x[c])).gate);
  }
}

template <class T>
void gelu_tanh_gradient(const void* from, const void* gradient, void* to, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const T *x = static_cast<const T*>(from) + r * width, *dy = static_cast<const T*>(gradient) + r * width;
    T* dx = static_cast<T*>(to) + r * width;
    for (int64_t c = 0; c < width; ++c) dx[c] = store<T>(load<T>(dy[c]) * tanh_gate(load<T>(x[c])).slope);
  }
}

template <class T>
void softmax(const float* from, void* to, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* s = from + r * width;
    T* p = static_cast<T*>(to) + r * width;
    float parts[16], most = s[0];
    for (float& part : parts) part = most;
    for (int64_t i = 0; i + 16 <= width; i += 16)
      for (int64_t l = 0; l < 16; ++l) parts[l] = s[i + l] > parts[l] ? s[i + l] : parts[l];
    for (int64_t i = width / 16 * 16; i < width; ++i) most = s[i] > most ? s[i] : most;
    for (const float part : parts) most = part > most ? part : most;
    const auto weight = [=](float x) { return x - most < -87.0f ? 0.0f : exp_nonpositive(x - most); };
    const float inverse = 1 / sum(s, width, weight);
    for (int64_t i = 0; i < width; ++i) p[i] = store<T>(weight(s[i]) * inverse);
  }
}

template <class T>
void softmax_gradient(const void* weights, const float* gradient, void* to, int64_t rows, int64_t width, float scale) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* p = static_cast<const T*>(weights) + r * width;
    const float* dp = gradient + r * width;
    T* ds = static_cast<T*>(to) + r * width;
    float parts[16] = {}, mean = 0;
    for (int64_t i = 0; i + 16 <= width; i += 16)
      for (int64_t l = 0; l < 16; ++l) parts[l] += load<T>(p[i + l]) * dp[i + l];
    for (int64_t i = width / 16 * 16; i < width; ++i) mean += load<T>(p[i]) * dp[i];
    for (const float part : parts) mean += part;
    for (int64_t i = 0; i < width; ++i) ds[i] = store<T>(scale * load<T>(p[i]) * (dp[i] - mean));
  }
}

template <class T>
void from_half(const uint16_t* x, void* to, int64_t count) {
  T* y = static_cast<T*>(to);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t h = x[i], rest = h & 0x7fffu;
    // Exponent and mantissa in their new places, and 2^112 for the difference of the biases; subnormals come out right. Infinities and
    // what is no number have the greatest exponent in both types.
    const uint32_t finite = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, rest << 13) * 0x1p112f);
    const uint32_t bits = rest >= 0x7c00u ? rest << 13 | 0x7f800000u : finite;
    y[i] = store<T>(__builtin_bit_cast(float, bits | (h & 0x8000u) << 16));
  }
}

/// 32 bits that look random, of a place (Murmur3's last step, Appleby 2008).
inline uint32_t mixed(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

template <class T>
void dropout(const void* from, void* to, int64_t first, int64_t count, int64_t offset, float p, uint64_t seed) {
  const T* x = static_cast<const T*>(from) + first;
  T* y = static_cast<T*>(to) + first;
  const auto drops = int32_t(p * float(1 << 24));
  const float gain = 1 / (1 - p);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = mixed(mixed(uint32_t(offset + first + i) ^ uint32_t(seed)) + uint32_t(seed >> 32));
    y[i] = store<T>(int32_t(bits >> 8) < drops ? 0.0f : load<T>(x[i]) * gain);
  }
}

template <class T>
constexpr TokenKernel of_type{layer_norm<T>,       geglu<T>,     geglu_gradient<T>, gelu_tanh<T>, gelu_tanh_gradient<T>, softmax<T>,
                              softmax_gradient<T>, from_half<T>, dropout<T>};
inline constexpr TokenKernels all{of_type<float>, of_type<uint16_t>};
