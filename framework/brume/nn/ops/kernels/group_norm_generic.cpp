// The group norm passes on 4 lanes of the compiler's own vectors: SSE2, NEON, or plain code, without any flag.
#include <cstddef>

#include "brume/nn/ops/kernels/group_norm_body.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "an even bf16 is expected in the lower half of a 32-bit word");

namespace brume::nn::kernels {
namespace generic {

struct Vector {
  typedef float F __attribute__((vector_size(16)));
  typedef std::uint32_t I __attribute__((vector_size(16)));
  static constexpr bool scale_saturates = false;
  static constexpr std::int64_t width = 4;

  static F set(float value) { return F{value, value, value, value}; }
  static F fma(F a, F b, F c) { return a * b + c; }
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F round(F a) { return (a + set(12582912.f)) - set(12582912.f); }  // the last bit of a + 1.5 * 2^23 is worth 1
  static F scale(F p, F n) {                                               // adds n to the exponent
    const I exponent = reinterpret_cast<I>(n + set(12582912.f)) << 23;
    return reinterpret_cast<F>(reinterpret_cast<I>(p) + exponent);
  }
  static F reciprocal(F a) { return set(1.f) / a; }

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

  static Pair<Vector> load(const float* p, Whole) {
    Pair<Vector> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(float* p, Whole, Pair<Vector> v) { __builtin_memcpy(p, &v, sizeof v); }

  static Pair<Vector> load(const Bf16* p, Whole) {
    I v;
    __builtin_memcpy(&v, p, sizeof v);
    return {{reinterpret_cast<F>(v << 16), reinterpret_cast<F>(v & 0xffff0000u)}};
  }
  static void store(Bf16* p, Whole, Pair<Vector> v) {
    const I packed = (rounded(v.at[0]) >> 16) | (rounded(v.at[1]) & 0xffff0000u);
    __builtin_memcpy(p, &packed, sizeof packed);
  }

  template <class T>
  static Pair<Vector> channels(const float* p) {
    const Pair<Vector> v = load(p, Whole{});
    if constexpr (sizeof(T) == sizeof(float)) return v;
    return {{__builtin_shufflevector(v.at[0], v.at[1], 0, 2, 4, 6), __builtin_shufflevector(v.at[0], v.at[1], 1, 3, 5, 7)}};
  }
  template <class T>
  static void unpack(float* p, Pair<Vector> v) {
    if constexpr (sizeof(T) == sizeof(float)) return store(p, Whole{}, v);
    store(p, Whole{}, {{__builtin_shufflevector(v.at[0], v.at[1], 0, 4, 1, 5), __builtin_shufflevector(v.at[0], v.at[1], 2, 6, 3, 7)}});
  }

 private:
  /// To the nearest bf16, ties to even: adds 0x7fff plus the last bit kept. NaNs whose payload came from a bf16 stay NaNs.
  static I rounded(F v) {
    const I bits = reinterpret_cast<I>(v);
    return bits + 0x7fffu + ((bits >> 16) & 1u);
  }
};

}  // namespace generic

const GroupNormKernels& group_norm_generic() { return group_norm_table<generic::Vector>(); }

}  // namespace brume::nn::kernels
