// The group norm passes on 16 lanes: AVX512 F, BW, VL, DQ.
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the "undefined" pass-through operand inside its own AVX512 intrinsics for a use of ours (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include "brume/nn/ops/kernels/group_norm_body.h"

namespace brume::nn::kernels {
namespace avx512 {

struct Vector {
  using F = __m512;
  using I = __m512i;
  static constexpr bool scale_saturates = true;
  static constexpr std::int64_t width = 16;

  static F set(float value) { return _mm512_set1_ps(value); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F scale(F p, F n) { return _mm512_scalef_ps(p, n); }
  static F reciprocal(F a) { return _mm512_rcp14_ps(a); }

  static Pair<Vector> load(const float* p, Whole) { return {{_mm512_loadu_ps(p), _mm512_loadu_ps(p + width)}}; }
  static Pair<Vector> load(const float* p, Part part) {
    const __mmask32 m = mask(part);
    return {{_mm512_maskz_loadu_ps(static_cast<__mmask16>(m), p), _mm512_maskz_loadu_ps(static_cast<__mmask16>(m >> width), p + width)}};
  }
  static void store(float* p, Whole, Pair<Vector> v) {
    _mm512_storeu_ps(p, v.at[0]);
    _mm512_storeu_ps(p + width, v.at[1]);
  }
  static void store(float* p, Part part, Pair<Vector> v) {
    const __mmask32 m = mask(part);
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(m), v.at[0]);
    _mm512_mask_storeu_ps(p + width, static_cast<__mmask16>(m >> width), v.at[1]);
  }

  static Pair<Vector> load(const Bf16* p, Whole) { return widen(_mm512_loadu_si512(p)); }
  static Pair<Vector> load(const Bf16* p, Part part) { return widen(_mm512_maskz_loadu_epi16(mask(part), p)); }
  static void store(Bf16* p, Whole, Pair<Vector> v) { _mm512_storeu_si512(p, narrow(v)); }
  static void store(Bf16* p, Part part, Pair<Vector> v) { _mm512_mask_storeu_epi16(p, mask(part), narrow(v)); }

  template <class T>
  static Pair<Vector> channels(const float* p) {
    const Pair<Vector> v = load(p, Whole{});
    if constexpr (sizeof(T) == sizeof(float)) return v;
    const I even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const I odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return {{_mm512_permutex2var_ps(v.at[0], even, v.at[1]), _mm512_permutex2var_ps(v.at[0], odd, v.at[1])}};
  }
  template <class T>
  static void unpack(float* p, Pair<Vector> v) {
    if constexpr (sizeof(T) == sizeof(float)) return store(p, Whole{}, v);
    const I low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const I high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    store(p, Whole{}, {{_mm512_permutex2var_ps(v.at[0], low, v.at[1]), _mm512_permutex2var_ps(v.at[0], high, v.at[1])}});
  }

 private:
  static __mmask32 mask(Part part) { return (__mmask32{1} << part.count) - 1; }  // 0 < count < 32
  static Pair<Vector> widen(I v) {
    return {{_mm512_castsi512_ps(_mm512_slli_epi32(v, 16)),
             _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))}};
  }
  /// To the nearest bf16, ties to even. NaNs whose payload came from a bf16 stay NaNs. The lower halves are compared, both vectors'
  /// at once, with the tie 0x8000; an odd last bit counts as one more.
  static I narrow(Pair<Vector> v) {
    constexpr __mmask32 odd = 0xaaaaaaaau;
    const I a = _mm512_castps_si512(v.at[0]), b = _mm512_castps_si512(v.at[1]);
    const I upper = _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(a, 16), b);
    const I lower = _mm512_mask_blend_epi16(odd, a, _mm512_slli_epi32(b, 16));
    const I last = _mm512_and_si512(upper, _mm512_set1_epi16(1));
    const __mmask32 up = _mm512_cmpgt_epu16_mask(_mm512_adds_epu16(lower, last), _mm512_set1_epi16(static_cast<short>(0x8000)));
    return _mm512_mask_add_epi16(upper, up, upper, _mm512_set1_epi16(1));
  }
};

}  // namespace avx512

const GroupNormKernels& group_norm_avx512() { return group_norm_table<avx512::Vector>(); }

}  // namespace brume::nn::kernels
