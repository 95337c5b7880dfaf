// The group norm passes on 8 lanes: AVX2 and FMA.
#include <immintrin.h>

#include "brume/nn/ops/kernels/group_norm_body.h"

namespace brume::nn::kernels {
namespace avx2 {

struct Vector {
  using F = __m256;
  using I = __m256i;
  static constexpr bool scale_saturates = false;
  static constexpr std::int64_t width = 8;

  static F set(float value) { return _mm256_set1_ps(value); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F scale(F p, F n) {  // adds n to the exponent
    const I exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
  }
  static F reciprocal(F a) {  // 11 bits, and a step of Newton's: on some processors those are all biased downwards
    const F r = _mm256_rcp_ps(a);
    return r * _mm256_fnmadd_ps(a, r, set(2.f));
  }

  template <class T>
  static Pair<Vector> load(const T* p, Part part) {
    T buffer[2 * width] = {};
    __builtin_memcpy(buffer, p, static_cast<std::size_t>(part.count) * sizeof(T));
    return load(buffer, Whole{});
  }
  template <class T>
  static void store(T* p, Part part, Pair<Vector> v) {
    T buffer[2 * width];
    store(buffer, Whole{}, v);
    __builtin_memcpy(p, buffer, static_cast<std::size_t>(part.count) * sizeof(T));
  }

  static Pair<Vector> load(const float* p, Whole) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + width)}}; }
  static void store(float* p, Whole, Pair<Vector> v) {
    _mm256_storeu_ps(p, v.at[0]);
    _mm256_storeu_ps(p + width, v.at[1]);
  }

  static Pair<Vector> load(const Bf16* p, Whole) {
    const I v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(v, 16)),
             _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))}};
  }
  static void store(Bf16* p, Whole, Pair<Vector> v) {
    const I packed = _mm256_blend_epi16(_mm256_srli_epi32(rounded(v.at[0]), 16), rounded(v.at[1]), 0xaa);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
  }

  template <class T>
  static Pair<Vector> channels(const float* p) {
    const Pair<Vector> v = load(p, Whole{});
    if constexpr (sizeof(T) == sizeof(float)) return v;
    return {{across_lanes(_mm256_shuffle_ps(v.at[0], v.at[1], 0x88)), across_lanes(_mm256_shuffle_ps(v.at[0], v.at[1], 0xdd))}};
  }
  template <class T>
  static void unpack(float* p, Pair<Vector> v) {
    if constexpr (sizeof(T) == sizeof(float)) return store(p, Whole{}, v);
    const F low = _mm256_unpacklo_ps(v.at[0], v.at[1]), high = _mm256_unpackhi_ps(v.at[0], v.at[1]);
    store(p, Whole{}, {{_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)}});
  }

 private:
  static F across_lanes(F v) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)); }
  /// To the nearest bf16, ties to even: adds 0x7fff plus the last bit kept. NaNs whose payload came from a bf16 stay NaNs.
  static I rounded(F v) {
    const I bits = _mm256_castps_si256(v);
    const I last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)));
  }
};

}  // namespace avx2

const GroupNormKernels& group_norm_avx2() { return group_norm_table<avx2::Vector>(); }

}  // namespace brume::nn::kernels
