#pragma once
// The passes of nn/kernels/group_norm_kernel.h, written once over a vector type V; the group_norm_<isa>.cpp instantiate them.
//
//   z  = (x - centre) * gain + bias
//   y  = z * s,  s = sigmoid(z)                 silu
//   dz = dy * (s + y * (1 - s))                 its derivative
//
// V is a struct of static functions:
//   F               a vector of `width` floats, with the arithmetic operators
//   set, fma, min, max, round (to the nearest integer, for |a| < 2^22), reciprocal (to 13 bits or better)
//                   min and max return their second argument if either is NaN
//   scale(p, n)     p * 2^n for p in [0.7, 1.5] and an integral n from -126 to 126, or any n if scale_saturates
//   load / store    2 * width consecutive elements as a Pair, whole or in part
//   channels<T> / unpack<T>   the same for floats indexed by channel, in the order in which load() gives elements of type T
//
// bf16 elements come as even and odd channels, not as lower and upper half: a shift and a mask instead of moves across lanes.
//
// These files are compiled for processors that the rest of the program may not have, so they must not instantiate any inline function
// of the standard library: the linker keeps one copy of those, maybe this one. Every function below is a template over V instead.

#include "brume/nn/ops/kernels/group_norm_kernel.h"

// Arrays of vectors stay in registers only if everything that takes them is inlined and its loops unrolled.
#define BRUME_INLINE __attribute__((always_inline)) inline

namespace brume::nn::kernels {

enum class Bf16 : std::uint16_t {};

/// N vectors that go through the same steps. An operation is done for all of them before the next one: a sigmoid is a chain of some 60
/// cycles, and the processor's window is too short to overlap them if they follow one another (measured on Zen 5: a fifth slower).
template <class V, int N>
struct Vectors {
  typename V::F at[N];
};
template <class V>
using Pair = Vectors<V, 2>;

inline constexpr int rows_at_once = 2;  // two pairs: four chains fit 16 registers, more do not pay even with 32

template <class V, int N, class Operation>
BRUME_INLINE Vectors<V, N> each(Operation operation) {
  Vectors<V, N> result;
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) result.at[i] = operation(i);
  return result;
}
template <class V, int N>
BRUME_INLINE Vectors<V, N> operator+(Vectors<V, N> a, Vectors<V, N> b) {
  return each<V, N>([&](int i) { return a.at[i] + b.at[i]; });
}
template <class V, int N>
BRUME_INLINE Vectors<V, N> operator-(Vectors<V, N> a, Vectors<V, N> b) {
  return each<V, N>([&](int i) { return a.at[i] - b.at[i]; });
}
template <class V, int N>
BRUME_INLINE Vectors<V, N> operator*(Vectors<V, N> a, Vectors<V, N> b) {
  return each<V, N>([&](int i) { return a.at[i] * b.at[i]; });
}
template <class V, int N>
BRUME_INLINE Vectors<V, N> fma(Vectors<V, N> a, Vectors<V, N> b, Vectors<V, N> c) {
  return each<V, N>([&](int i) { return V::fma(a.at[i], b.at[i], c.at[i]); });
}
/// value held within [low, high]; NaN stays.
template <class V, int N>
BRUME_INLINE Vectors<V, N> clamp(Vectors<V, N> value, float low, float high) {
  value = each<V, N>([&](int i) { return V::min(V::set(high), value.at[i]); });
  return each<V, N>([&](int i) { return V::max(V::set(low), value.at[i]); });
}
template <class V, int N>
BRUME_INLINE Vectors<V, N> all(float value) {
  return each<V, N>([&](int) { return V::set(value); });
}
/// Returns the same channels for N / 2 rows.
template <class V, int N>
BRUME_INLINE Vectors<V, N> repeat(Pair<V> pair) {
  return each<V, N>([&](int i) { return pair.at[i % 2]; });
}

/// How much of a tile's 2 * width channels exists: all, or the first `count`.
struct Whole {};
struct Part {
  std::int64_t count;
};

/// 1 / (1 + exp(-z)): to about 2e-4 relative for bf16, to about 2e-7 for float32.
template <class T, class V, int N>
BRUME_INLINE Vectors<V, N> sigmoid(Vectors<V, N> z) {
  const auto c = [](float value) { return all<V, N>(value); };
  const auto round = [](Vectors<V, N> a) { return each<V, N>([&](int i) { return V::round(a.at[i]); }); };
  const auto scale = [](Vectors<V, N> p, Vectors<V, N> n) { return each<V, N>([&](int i) { return V::scale(p.at[i], n.at[i]); }); };
  if constexpr (sizeof(T) == 2) {
    auto t = z * c(-1.44269504f);
    if constexpr (!V::scale_saturates) t = clamp(t, -126.f, 126.f);
    const auto n = round(t), f = t - n;
    auto p = fma(c(5.5171e-2f), f, c(2.4261e-1f));  // 2^f on [-1/2, 1/2]
    p = fma(p, f, c(6.9326e-1f));
    p = fma(p, f, c(9.99925e-1f));
    const auto denominator = c(1.f) + scale(p, n);
    return each<V, N>([&](int i) { return V::reciprocal(denominator.at[i]); });
  } else {
    const auto u = clamp(z * c(-1.f), -87.f, 87.f), n = round(u * c(1.44269504f));
    auto f = fma(n, c(-0.693359375f), u);  // u - n ln 2 in two steps (Cody & Waite 1980): the first product is exact
    f = fma(n, c(2.12194440e-4f), f);
    auto p = fma(c(1.3888889e-3f), f, c(8.3333333e-3f));  // exp(f) on [-0.35, 0.35]
    p = fma(p, f, c(4.1666667e-2f));
    p = fma(p, f, c(1.6666667e-1f));
    p = fma(p, f, c(5.0000000e-1f));
    p = fma(p, f, c(1.f));
    p = fma(p, f, c(1.f));
    const auto denominator = c(1.f) + scale(p, n);
    return each<V, N>([&](int i) { return V::set(1.f) / denominator.at[i]; });
  }
}

/// y from z.
template <class T, bool silu, class V, int N>
BRUME_INLINE Vectors<V, N> activate(Vectors<V, N> z) {
  if constexpr (silu) return z * sigmoid<T>(z);
  return z;
}

/// dz from z and dy.
template <class T, bool silu, class V, int N>
BRUME_INLINE Vectors<V, N> activate_backward(Vectors<V, N> z, Vectors<V, N> dy) {
  if constexpr (!silu) return dy;
  const Vectors<V, N> s = sigmoid<T>(z);
  return dy * fma(z * s, all<V, N>(1.f) - s, s);
}

/// Calls body(first_row, end_row, channel, Whole or Part) for tiles of strip_rows x 2 * width; a strip is one run of memory.
template <class V, class Body>
inline void for_tiles(std::int64_t rows, std::int64_t channels, Body body) {
  constexpr std::int64_t step = 2 * V::width;
  for (std::int64_t row = 0; row < rows; row += strip_rows) {
    const std::int64_t end = rows - row < strip_rows ? rows : row + strip_rows;
    std::int64_t c = 0;
    for (; c + step <= channels; c += step) body(row, end, c, Whole{});
    if (c < channels) body(row, end, c, Part{channels - c});
  }
}

template <int N>
struct Count {
  static constexpr int vectors = N;
};

/// Calls body(row, Count<vectors>) for rows_at_once rows at a time, then for those that remain.
template <class V, class Body>
BRUME_INLINE void for_rows(std::int64_t row, std::int64_t end, Body body) {
  for (; row + rows_at_once <= end; row += rows_at_once) body(row, Count<2 * rows_at_once>{});
  for (; row < end; ++row) body(row, Count<2>{});
}

/// One tile's column of x (or y, dy, dx): pairs of vectors, a row of memory apart.
template <class V, class T, class Extent>
struct Column {
  T* data;
  std::int64_t channels;
  Extent extent;

  template <int N>
  BRUME_INLINE Vectors<V, N> load(std::int64_t row, Count<N>) const {
    Vectors<V, N> result;
#pragma GCC unroll 8
    for (int i = 0; i < N; i += 2) {
      const Pair<V> pair = V::load(data + (row + i / 2) * channels, extent);
      result.at[i] = pair.at[0];
      result.at[i + 1] = pair.at[1];
    }
    return result;
  }
  template <int N>
  BRUME_INLINE void store(std::int64_t row, Vectors<V, N> values) const {
#pragma GCC unroll 8
    for (int i = 0; i < N; i += 2) V::store(data + (row + i / 2) * channels, extent, Pair<V>{{values.at[i], values.at[i + 1]}});
  }
};
template <class V, class T, class Extent>
BRUME_INLINE Column<V, T, Extent> column(T* data, std::int64_t channels, std::int64_t channel, Extent extent) {
  return {data + channel, channels, extent};
}

/// A running float32 sum over the rows of one tile, one part per row worked on at once.
template <class V>
struct TileSum {
  Vectors<V, 2 * rows_at_once> parts = all<V, 2 * rows_at_once>(0.f);

  /// parts += a * b
  template <int N>
  BRUME_INLINE void add_product(Vectors<V, N> a, Vectors<V, N> b) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) parts.at[i] = V::fma(a.at[i], b.at[i], parts.at[i]);
  }
  template <int N>
  BRUME_INLINE void add(Vectors<V, N> a) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) parts.at[i] = parts.at[i] + a.at[i];
  }
  /// total[c] += the sums, in double. Lanes past the last channel hold zeros.
  template <class T>
  BRUME_INLINE void add_to(double* total) const {
    Pair<V> sum{{parts.at[0], parts.at[1]}};
#pragma GCC unroll 8
    for (int i = 2; i < 2 * rows_at_once; ++i) sum.at[i % 2] = sum.at[i % 2] + parts.at[i];
    float buffer[2 * V::width];
    V::template unpack<T>(buffer, sum);
    for (int i = 0; i < 2 * V::width; ++i) total[i] += static_cast<double>(buffer[i]);
  }
};

template <class V, class T>
[[gnu::flatten]] void moments(const void* x, std::int64_t rows, std::int64_t channels, const float* centre, double* sum, double* square) {
  for_tiles<V>(rows, channels, [=](std::int64_t begin, std::int64_t end, std::int64_t c, auto extent) {
    const auto from = column<V>(static_cast<const T*>(x), channels, c, extent);
    const Pair<V> m = V::template channels<T>(centre + c);
    TileSum<V> sums, squares;
    for_rows<V>(begin, end, [&](std::int64_t row, auto count) {
      const auto d = from.load(row, count) - repeat<V, count.vectors>(m);
      sums.add(d);
      squares.add_product(d, d);
    });
    sums.template add_to<T>(sum + c);
    squares.template add_to<T>(square + c);
  });
}

/// z for the channels of one tile.
template <class V>
struct TileAffine {
  Pair<V> centre, gain, bias;
  template <int N>
  BRUME_INLINE Vectors<V, N> operator()(Vectors<V, N> centred) const {
    return fma(centred, repeat<V, N>(gain), repeat<V, N>(bias));
  }
};
template <class V, class T>
BRUME_INLINE TileAffine<V> tile_affine(const ChannelAffine& affine, std::int64_t c) {
  return {V::template channels<T>(affine.centre + c), V::template channels<T>(affine.gain + c), V::template channels<T>(affine.bias + c)};
}

template <class V, class T, bool silu>
[[gnu::flatten]] void apply_as(const T* x, T* y, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine) {
  for_tiles<V>(rows, channels, [=](std::int64_t begin, std::int64_t end, std::int64_t c, auto extent) {
    const auto from = column<V>(x, channels, c, extent);
    const auto to = column<V>(y, channels, c, extent);
    const TileAffine<V> z = tile_affine<V, T>(affine, c);
    for_rows<V>(begin, end, [&](std::int64_t row, auto count) {
      to.store(row, activate<T, silu>(z(from.load(row, count) - repeat<V, count.vectors>(z.centre))));
    });
  });
}

template <class V, class T>
void apply(const void* x, void* y, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine) {
  const auto run = affine.silu ? apply_as<V, T, true> : apply_as<V, T, false>;
  run(static_cast<const T*>(x), static_cast<T*>(y), rows, channels, affine);
}

template <class V, class T, bool silu>
[[gnu::flatten]] void gradient_sums_as(const T* x, const T* dy, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine,
                                       double* sum, double* moment) {
  for_tiles<V>(rows, channels, [=](std::int64_t begin, std::int64_t end, std::int64_t c, auto extent) {
    const auto from = column<V>(x, channels, c, extent), upstream = column<V>(dy, channels, c, extent);
    const TileAffine<V> z = tile_affine<V, T>(affine, c);
    TileSum<V> sums, moments;
    for_rows<V>(begin, end, [&](std::int64_t row, auto count) {
      const auto d = from.load(row, count) - repeat<V, count.vectors>(z.centre);
      const auto dz = activate_backward<T, silu>(z(d), upstream.load(row, count));
      sums.add(dz);
      moments.add_product(dz, d);
    });
    sums.template add_to<T>(sum + c);
    moments.template add_to<T>(moment + c);
  });
}

template <class V, class T>
void gradient_sums(const void* x, const void* dy, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine, double* sum,
                   double* moment) {
  const auto run = affine.silu ? gradient_sums_as<V, T, true> : gradient_sums_as<V, T, false>;
  run(static_cast<const T*>(x), static_cast<const T*>(dy), rows, channels, affine, sum, moment);
}

template <class V, class T, bool silu>
[[gnu::flatten]] void gradient_as(const T* x, const T* dy, T* dx, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine,
                                  const float* slope, const float* offset) {
  for_tiles<V>(rows, channels, [=](std::int64_t begin, std::int64_t end, std::int64_t c, auto extent) {
    const auto from = column<V>(x, channels, c, extent), upstream = column<V>(dy, channels, c, extent);
    const auto to = column<V>(dx, channels, c, extent);
    const TileAffine<V> z = tile_affine<V, T>(affine, c);
    const Pair<V> p = V::template channels<T>(slope + c), q = V::template channels<T>(offset + c);
    for_rows<V>(begin, end, [&](std::int64_t row, auto count) {
      constexpr int n = count.vectors;
      const auto d = from.load(row, count) - repeat<V, n>(z.centre);
      const auto dz = activate_backward<T, silu>(z(d), upstream.load(row, count));
      to.store(row, fma(dz, repeat<V, n>(z.gain), fma(d, repeat<V, n>(p), repeat<V, n>(q))));
    });
  });
}

template <class V, class T>
void gradient(const void* x, const void* dy, void* dx, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine,
              const float* slope, const float* offset) {
  const auto run = affine.silu ? gradient_as<V, T, true> : gradient_as<V, T, false>;
  run(static_cast<const T*>(x), static_cast<const T*>(dy), static_cast<T*>(dx), rows, channels, affine, slope, offset);
}

template <class V>
const GroupNormKernels& group_norm_table() {
  static constexpr GroupNormKernels table{
      {moments<V, float>, apply<V, float>, gradient_sums<V, float>, gradient<V, float>},
      {moments<V, Bf16>, apply<V, Bf16>, gradient_sums<V, Bf16>, gradient<V, Bf16>},
  };
  return table;
}

}  // namespace brume::nn::kernels

#undef BRUME_INLINE
