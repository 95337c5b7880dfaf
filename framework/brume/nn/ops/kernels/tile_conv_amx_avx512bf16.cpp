#include <immintrin.h>

#include "brume/nn/ops/kernels/amx.h"
#include "brume/nn/ops/kernels/tile_conv_kernel.h"
#include "brume/nn/ops/kernels/transpose.h"

namespace brume::nn::kernels {
namespace {

constexpr int64_t tile_floats = tile_bytes / 4;

__mmask32 first_of(int64_t count) { return count >= 32 ? 0xffffffffu : (1u << count) - 1; }

/// Walks along positions.
struct Position {
  const TileShape& shape;
  int64_t image, y, x;

  Position(const TileShape& s, int64_t index) : shape(s) {
    const int64_t ahead = (s.height + s.margin()) * s.line();  // positions before the first one have no pixel: those of image -1
    index += ahead;
    const int64_t row = index / s.line();
    x = index % s.line(), y = row % (s.height + s.margin()), image = row / (s.height + s.margin()) - 1;
  }
  bool pixel() const { return image >= 0 && image < shape.images && y < shape.height && x < shape.width; }
  int64_t index() const { return (image * shape.height + y) * shape.width + x; }
  void next() {
    if (++x < shape.line()) return;
    x = 0;
    if (++y < shape.height + shape.margin()) return;
    y = 0, ++image;
  }
};

void pack(const TileShape& s, const uint16_t* from, int64_t first, int64_t count, char* to) {
  Position p(s, first);
  const int64_t depths = s.depths();
  for (int64_t i = 0; i < count; ++i, p.next(), to += s.row_bytes()) {
    const uint16_t* const row = p.pixel() ? from + p.index() * s.channels : nullptr;
    for (int64_t d = 0; d < depths; ++d) {
      const __mmask32 mask = row ? first_of(s.channels - d * tile_depth) : 0;
      _mm512_storeu_si512(to + d * 64, _mm512_maskz_loadu_epi16(mask, row + d * tile_depth));
    }
  }
}

/// Lanes of two rows, one after the other, as pairs.
inline __m512i interleave(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}
inline __m256i sixteen(const uint16_t* from, bool there) {
  return there ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)) : _mm256_setzero_si256();
}

/// One tile of weights: 16 pairs of channels from `c` on, 16 output channels from `o` on.
void weight_tile(const TileShape& s, const uint16_t* from, bool gradient, int64_t tap, int64_t c, int64_t o, char* to) {
  const int64_t taps = s.kernel * s.kernel;
  if (gradient) {
    for (int64_t j = 0; j < tile_side; ++j, c += 2) {
      const auto row = [&](int64_t k) { return sixteen(from + (k * taps + taps - 1 - tap) * s.out + o, k < s.channels && o < s.out); };
      _mm512_storeu_si512(to + j * 64, interleave(row(c), row(c + 1)));
    }
    return;
  }
  __m512i r[tile_side];
  for (int64_t j = 0; j < tile_side; ++j) {
    const __mmask32 mask = o < s.out ? first_of(s.channels - c) : 0;
    r[j] = _mm512_maskz_loadu_epi16(mask, from + ((o + j) * taps + tap) * s.channels + c);
  }
  transpose(r);
  for (int64_t j = 0; j < tile_side; ++j) _mm512_storeu_si512(to + j * 64, r[j]);
}

void weights(const TileShape& s, const uint16_t* from, bool gradient, int64_t pair, char* to) {
  for (int64_t dy = 0; dy < s.kernel; ++dy)
    for (int64_t d = 0; d < s.depths(); ++d)
      for (int64_t dx = 0; dx < s.kernel; ++dx)
        for (int64_t half = 0; half < 2; ++half, to += tile_bytes)
          weight_tile(s, from, gradient, dy * s.kernel + dx, d * tile_depth, pair * tile_pair + half * tile_side, to);
}

/// The sums of up to three tiles of rows by two of columns, [tiles, 2, 16, 16], which lie in tiles 0 to 5.
template <int tiles>
struct TileSums {
  static void begin(const float* from) {
    const auto at = [&](int t, int half) { return from + (t * 2 + half) * tile_floats; };
    if (!from) {
      Amx::zero<0>(), Amx::zero<1>(), Amx::zero<2>(), Amx::zero<3>(), Amx::zero<4>(), Amx::zero<5>();
      return;
    }
    Amx::load<0>(at(0, 0)), Amx::load<1>(at(0, 1));
    if constexpr (tiles > 1) Amx::load<2>(at(1, 0)), Amx::load<3>(at(1, 1));
    if constexpr (tiles > 2) Amx::load<4>(at(2, 0)), Amx::load<5>(at(2, 1));
  }
  /// `next`: bytes from one tile of rows to the next; `step`: from one row to the next.
  static void add(const char* rows, int64_t next, int64_t step, const char* left, const char* right) {
    Amx::load<7>(left), Amx::load<6>(rows, step), Amx::multiply<0, 6, 7>();
    Amx::load<7>(right), Amx::multiply<1, 6, 7>();
    if constexpr (tiles > 1) {
      Amx::load<6>(rows + next, step), Amx::multiply<3, 6, 7>();
      Amx::load<7>(left), Amx::multiply<2, 6, 7>();
    }
    if constexpr (tiles > 2) {
      Amx::load<6>(rows + 2 * next, step), Amx::multiply<4, 6, 7>();
      Amx::load<7>(right), Amx::multiply<5, 6, 7>();
    }
  }
  static void end(float* to) {
    const auto at = [&](int t, int half) { return to + (t * 2 + half) * tile_floats; };
    Amx::store<0>(at(0, 0)), Amx::store<1>(at(0, 1));
    if constexpr (tiles > 1) Amx::store<2>(at(1, 0)), Amx::store<3>(at(1, 1));
    if constexpr (tiles > 2) Amx::store<4>(at(2, 0)), Amx::store<5>(at(2, 1));
  }
};

/// sums [tiles, 2] (+)= x w over rows of taps [begin, end); `x`: of the first position.
template <int tiles>
void multiply_block(const TileShape& s, const TileProduct& p, const char* x, float* sums) {
  TileSums<tiles>::begin(p.begin == 0 ? nullptr : sums);
  const int64_t depths = s.depths(), next = tile_side * p.row_bytes;
  const char* w = p.weights + p.begin * s.kernel * 2 * tile_bytes;
  for (int64_t unit = p.begin; unit < p.end; ++unit) {
    const char* a = x + (unit / depths - s.margin()) * s.line() * p.row_bytes - s.margin() * p.row_bytes + unit % depths * 64;
    for (int64_t dx = 0; dx < s.kernel; ++dx, a += p.row_bytes, w += 2 * tile_bytes)
      TileSums<tiles>::add(a, next, p.row_bytes, w, w + tile_bytes);
  }
  TileSums<tiles>::end(sums);
}

/// Rounds the sums of `count` positions from `first` on.
void write(const TileShape& s, const TileProduct& p, int64_t first, int64_t count, const float* sums) {
  const int64_t o = p.pair * tile_pair;
  const __mmask32 mask = first_of(s.out - o);
  const auto wide = mask > 0xffff ? __mmask16(0xffff) : __mmask16(0);
  const __m512 left = p.bias ? _mm512_loadu_ps(p.bias + o) : _mm512_setzero_ps();
  const __m512 right = p.bias ? _mm512_maskz_loadu_ps(wide, p.bias + o + tile_side) : _mm512_setzero_ps();
  Position at(s, first);
  for (int64_t i = 0; i < count; ++i, at.next()) {
    if (!at.pixel()) continue;
    const float* const from = sums + i / tile_side * 2 * tile_floats + i % tile_side * tile_side;
    __m512 a = _mm512_add_ps(_mm512_load_ps(from), left), b = _mm512_add_ps(_mm512_load_ps(from + tile_floats), right);
    const int64_t place = at.index() * s.out + o;
    if (p.sum) {
      const __m512i added = _mm512_maskz_loadu_epi16(mask, p.sum + place);
      const auto wider = [](__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); };
      a = _mm512_add_ps(a, wider(_mm512_castsi512_si256(added)));
      b = _mm512_add_ps(b, wider(_mm512_maskz_extracti64x4_epi64(0xff, added, 1)));
    }
    _mm512_mask_storeu_epi16(p.y + place, mask, (__m512i)_mm512_cvtne2ps_pbh(b, a));
  }
}

void multiply(const TileShape& s, const TileProduct& p) {
  alignas(64) float own[tile_block * tile_pair];
  const bool last = p.end == s.kernel * s.depths(), whole = p.begin == 0 && last;
  const Amx tiles;
  for (int64_t b = 0; b < p.count; b += tile_block) {
    const int64_t count = p.count - b < tile_block ? p.count - b : tile_block;
    float* const sums = whole ? own : p.sums + b * tile_pair;
    const char* const x = p.x + b * p.row_bytes;
    if (count > 2 * tile_side)
      multiply_block<3>(s, p, x, sums);
    else if (count > tile_side)
      multiply_block<2>(s, p, x, sums);
    else
      multiply_block<1>(s, p, x, sums);
    if (last) write(s, p, p.first + b, count, sums);
  }
}

/// Calls store(step, rows) with the 16 pairs of each step.
template <class Store>
void for_pairs(const TileShape& s, const uint16_t* from, int64_t channels, int64_t channel, int64_t first, int64_t steps,
               const Store& store) {
  Position p(s, first);
  const auto row = [&] {
    const __m256i values = sixteen(from + (p.pixel() ? p.index() * channels + channel : 0), p.pixel());
    p.next();
    return values;
  };
  for (int64_t step = 0; step < steps; ++step) {
    __m512i r[tile_side];
    for (int64_t j = 0; j < tile_side; ++j) {
      const __m256i even = row(), odd = row();
      r[j] = interleave(even, odd);
    }
    store(step, r);
  }
}

void pairs(const TileShape& s, const uint16_t* from, int64_t channels, int64_t channel, int64_t first, int64_t steps, char* to) {
  for_pairs(s, from, channels, channel, first, steps, [&](int64_t step, __m512i* r) {
    for (int64_t j = 0; j < tile_side; ++j) _mm512_storeu_si512(to + step * tile_bytes + j * 64, r[j]);
  });
}

void columns(const TileShape& s, const uint16_t* from, int64_t channels, int64_t channel, int64_t first, int64_t steps, char* to,
             int64_t bytes) {
  for_pairs(s, from, channels, channel, first, steps, [&](int64_t step, __m512i* r) {
    transpose(r);
    for (int64_t j = 0; j < tile_side; ++j) _mm512_storeu_si512(to + j * bytes + step * 64, r[j]);
  });
}

template <int tiles>
void add_gradient(const TileGradient& g) {
  TileSums<tiles>::begin(g.begin ? nullptr : g.sums);
  const char *dy = g.dy, *x = g.x;
  for (int64_t step = 0; step < g.steps; ++step, dy += 64, x += tile_bytes) TileSums<tiles>::add(dy, g.next, g.dy_step, x, x + g.x_step);
  TileSums<tiles>::end(g.sums);
}

void gradient(const TileGradient& part, int64_t tiles) {
  const Amx ours;
  (tiles > 2 ? add_gradient<3> : tiles > 1 ? add_gradient<2> : add_gradient<1>)(part);
}

void sum(const char* from, int64_t row, int64_t count, float* to) {
  for (int64_t j = 0; j < tile_side; ++j, from += row) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int64_t i = 0; i < count; i += tile_depth) {
      const __m512i x = _mm512_maskz_loadu_epi16(first_of(count - i), from + i * 2);
      even = _mm512_add_ps(even, _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)));
      odd = _mm512_add_ps(odd, _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(int(0xffff0000)))));
    }
    alignas(64) float parts[tile_side];  // GCC 12 warns of its own sum
    _mm512_store_ps(parts, _mm512_add_ps(even, odd));
    for (int64_t i = 1; i < tile_side; ++i) parts[0] += parts[i];
    to[j] += parts[0];
  }
}

constexpr TileKernel all{pack, weights, multiply, pairs, columns, gradient, sum};

}  // namespace

const TileKernel& tile_conv_amx() { return all; }

}  // namespace brume::nn::kernels
