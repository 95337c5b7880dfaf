// attention_kernel.h for bfloat16 on tiles of 16 rows of 64 bytes (AMX), included for such tiles: T is the processor's, or, in
// tests, an emulation. Scores are made transposed, S^T = K Q^T: a row is a key and its 16 columns are queries. So keys are multiplied as
// they lie, whatever is done to scores goes down columns, and two rows of weights are what O^T += V^T P^T wants. A row of ones below
// V^T sums the weights as they were rounded. What came before is scaled down only if a score turns up that is 2^6 times greater.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <initializer_list>

#include "brume/nn/ops/kernels/attention_kernel.h"
#include "brume/nn/ops/kernels/transpose.h"

namespace brume::nn::kernels {
namespace {

#include "brume/nn/ops/kernels/numbers.h"

constexpr int64_t lanes = 16, pair = 2 * lanes;                   // values of a vector: float32, bfloat16
constexpr int64_t tile = lanes * pair;                            // bfloat16 values of a tile, which has half as many float32
constexpr int64_t sums = tile / 2;                                // float32 values of a tile
constexpr int64_t chunk = 256, block = 64, together = 2 * lanes;  // keys packed at a time, keys whose scores are kept, queries
constexpr float lowest = -1e20f, hidden = -1e30f, slack = 6;      // of maxima; the score of a key that is not seen; in powers of two

constexpr int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Places in the scratch memory. `queries`: [queries / 16, parts, tile]; `keys`: [chunk / 16, parts, tile]; `values`: [chunk /
/// 32, depth, tile], transposed; `scores`: [block / 32, 2 of keys, 2 of queries, 16, 16]; `weights`: [block / 32, 2 of queries, tile];
/// `out`: [queries / 32, depth, 2 of queries, 16 channels, 16 queries]; `largest`: [queries]; `index`: of the keys that are seen.
struct Places {
  int64_t n = 0, parts, depth;
  uint16_t *queries, *keys, *values, *weights;
  float *scores, *out, *largest;
  int32_t* index;

  explicit Places(const AttentionHead& h) : parts((h.width + pair - 1) / pair), depth(h.width / lanes + 1) {
    const int64_t wide = up(h.queries, together);
    char* at = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(h.scratch) + 63) / 64 * 64);
    const auto take = [&](int64_t bytes) {
      char* const begin = at;
      at += up(bytes, 64);
      return begin;
    };
    const auto halves = [&](int64_t count) { return reinterpret_cast<uint16_t*>(take(2 * count)); };
    const auto floats = [&](int64_t count) { return reinterpret_cast<float*>(take(4 * count)); };
    queries = halves(wide * parts * pair), keys = halves(chunk * parts * pair), values = halves(chunk * depth * lanes);
    weights = halves(block * together), scores = floats(block * together);
    out = floats(wide * depth * lanes), largest = floats(wide);
    index = reinterpret_cast<int32_t*>(take(4 * h.keys));
    for (int64_t j = 0; j < h.keys; ++j)
      if (!h.seen || h.seen[j] != 0) index[n++] = int32_t(j);
  }
};

const uint16_t* element(const Rows& rows, int64_t row) { return static_cast<const uint16_t*>(rows.data) + row * rows.stride; }

/// Those of `count` bits that are there.
constexpr uint32_t first_bits(int64_t count) { return count >= 32 ? 0xffffffffu : count > 0 ? (1u << count) - 1 : 0; }

/// Returns true if one of these is infinite or not a number.
inline bool unbounded(__m512i x) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  return _mm512_cmpeq_epi16_mask(_mm512_and_si512(x, exponent), exponent) != 0;
}

/// Elements [32 part, 32 part + 32) of a row, zeros after its end.
inline __m512i part_of(const uint16_t* row, int64_t part, int64_t width) {
  return _mm512_maskz_loadu_epi16(first_bits(width - part * pair), row + part * pair);
}

/// False if one of them is unbounded.
bool pack_queries(const AttentionHead& h, const Places& m) {
  bool bounded = true;
  for (int64_t i = 0; i < up(h.queries, together); i += lanes)
    for (int64_t p = 0; p < m.parts; ++p) {
      __m512i r[lanes];
      for (int64_t l = 0; l < lanes; ++l) {
        r[l] = i + l < h.queries ? part_of(element(h.q, i + l), p, h.width) : _mm512_setzero_si512();
        bounded = bounded && !unbounded(r[l]);
      }
      transpose(r);
      for (int64_t l = 0; l < lanes; ++l) _mm512_store_si512(m.queries + (i / lanes * m.parts + p) * tile + l * pair, r[l]);
    }
  return bounded;
}

/// Seen keys [first, first + count), zeros up to a multiple of 32. False if one of them is unbounded.
bool pack_keys(const AttentionHead& h, const Places& m, int64_t first, int64_t count) {
  bool bounded = true;
  for (int64_t j = 0; j < up(count, together); ++j) {
    const uint16_t* k = j < count ? element(h.k, m.index[first + j]) : nullptr;
    for (int64_t p = 0; p < m.parts; ++p) {
      const __m512i x = k ? part_of(k, p, h.width) : _mm512_setzero_si512();
      bounded = bounded && !unbounded(x);
      _mm512_store_si512(m.keys + (j / lanes * m.parts + p) * tile + j % lanes * pair, x);
    }
  }
  return bounded;
}

void pack_values(const AttentionHead& h, const Places& m, int64_t first, int64_t count) {
  for (int64_t j = 0; j < count; j += pair)
    for (int64_t d = 0; d < m.depth; ++d) {
      const auto mask = __mmask16(first_bits(h.width - d * lanes));
      const auto row = [&](int64_t key) {
        const uint16_t* v = key < count ? element(h.v, m.index[first + key]) : nullptr;
        return v ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, v + d * lanes)) : _mm512_setzero_si512();
      };
      __m512i r[lanes];
      for (int64_t l = 0; l < lanes; ++l) r[l] = _mm512_or_si512(row(j + 2 * l), _mm512_slli_epi32(row(j + 2 * l + 1), 16));
      transpose(r);
      if (d == h.width / lanes) r[h.width % lanes] = _mm512_set1_epi16(0x3f80);  // ones, which sum the weights
      for (int64_t l = 0; l < lanes; ++l) _mm512_store_si512(m.values + (j / pair * m.depth + d) * tile + l * pair, r[l]);
    }
}

/// Scores of 32 keys and 32 queries.
template <class T>
void score(const Places& m, const uint16_t* keys, const uint16_t* queries, float* to) {
  T::template zero<0>(), T::template zero<1>(), T::template zero<2>(), T::template zero<3>();
  for (int64_t p = 0; p < m.parts; ++p) {
    T::template load<4>(keys + p * tile), T::template load<6>(queries + p * tile);
    T::template multiply<0, 4, 6>();
    T::template load<7>(queries + (m.parts + p) * tile);
    T::template multiply<1, 4, 7>();
    T::template load<5>(keys + (m.parts + p) * tile);
    T::template multiply<2, 5, 6>(), T::template multiply<3, 5, 7>();
  }
  T::template store<0>(to), T::template store<1>(to + sums), T::template store<2>(to + 2 * sums), T::template store<3>(to + 3 * sums);
}

/// 2^(x scale + shift) for two rows as bfloat16 pairs, truncated: x scale + shift, times 2^23, is read as the bits of a float, which is
/// right at whole numbers, and a cubic in its mantissa mends the rest within 6.6e-4. 0 below 2^-126.
struct Power {
  __m512 scale, shift;
  explicit Power(float s) : scale(_mm512_set1_ps(s * 8388608.0f)), shift(_mm512_setzero_ps()) {}
  void from(__m512 largest) { shift = _mm512_mul_ps(_mm512_sub_ps(_mm512_set1_ps(127), largest), _mm512_set1_ps(8388608.0f)); }
  __m512 mended(__m512i bits) const {
    bits = _mm512_max_epi32(bits, _mm512_setzero_si512());
    const __m512i mantissa = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffff));
    const __m512 g = _mm512_castsi512_ps(_mm512_or_si512(mantissa, _mm512_set1_epi32(0x3f800000)));
    __m512 c = _mm512_set1_ps(-0.10644168f);
    for (const float next : {0.70745819f, -1.37728251f, 1.77560321f}) c = _mm512_fmadd_ps(c, g, _mm512_set1_ps(next));
    return _mm512_mul_ps(c, _mm512_castsi512_ps(bits));
  }
  __m512i operator()(const float* a, const float* b) const {
    const __m512 x = mended(_mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_load_ps(a), scale, shift)));
    const __m512 y = mended(_mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_load_ps(b), scale, shift)));
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(_mm512_castps_si512(x), 16), _mm512_castps_si512(y));
  }
};

/// Returns a row of the scores of 16 of the 32 queries.
inline float* row_of(const Places& m, int64_t half, int64_t key) {
  return m.scores + key / lanes * 2 * sums + half * sums + key % lanes * lanes;
}

/// Scores of keys [first, first + rows) of the chunk that the queries do not see become `hidden`; `valid`: keys that there are.
void hide(const AttentionHead& h, const Places& m, const int32_t* index, int64_t query, int64_t half, int64_t rows, int64_t valid) {
  const __m512 none = _mm512_set1_ps(hidden);
  for (int64_t j = 0; j < rows; ++j) {
    const int64_t later = j < valid && h.position >= 0 ? index[j] - h.position - query : 0;  // queries that come before the key
    const auto blind = __mmask16(j < valid ? first_bits(later) : 0xffffu);
    if (blind) _mm512_mask_store_ps(row_of(m, half, j), blind, none);
  }
}

/// Scores of `rows` keys become weights; what came before is scaled to them. out: of these 32 queries.
void weigh(const Places& m, float* out, float* largest, int64_t half, int64_t rows, float scale, Power& power) {
  __m512 most[4];
  for (__m512& x : most) x = _mm512_set1_ps(hidden);
  for (int64_t j = 0; j < rows; j += 4)
    for (int64_t l = 0; l < 4; ++l) most[l] = _mm512_max_ps(most[l], _mm512_load_ps(row_of(m, half, j + l)));
  const __m512 all = _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3]));
  const __m512 now = _mm512_mul_ps(all, _mm512_set1_ps(scale)), before = _mm512_load_ps(largest);
  const __mmask16 more = _mm512_cmp_ps_mask(now, _mm512_add_ps(before, _mm512_set1_ps(slack)), _CMP_GT_OQ);
  if (more) {
    // Whole numbers, so that fading rounds nothing.
    const __m512 next = _mm512_mask_roundscale_ps(before, more, now, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    const __m512 fade = _mm512_scalef_ps(_mm512_set1_ps(1), _mm512_max_ps(_mm512_sub_ps(before, next), _mm512_set1_ps(-200)));
    for (int64_t r = 0; r < m.depth * lanes; ++r) {
      float* row = out + r / lanes * 2 * sums + half * sums + r % lanes * lanes;
      _mm512_store_ps(row, _mm512_mul_ps(_mm512_load_ps(row), fade));
    }
    _mm512_store_ps(largest, next);
  }
  power.from(_mm512_load_ps(largest));
  for (int64_t j = 0; j < rows; j += 2)
    _mm512_store_si512(m.weights + j / pair * 2 * tile + half * tile + j % pair * lanes, power(row_of(m, half, j), row_of(m, half, j + 1)));
}

/// out += V^T P^T for `groups` of 32 keys, 32 queries and 16 `depth` channels.
template <class T, int depth>
void add_values(const Places& m, float* out, const uint16_t* values, int64_t groups) {
  T::template load<0>(out), T::template load<1>(out + sums);
  if constexpr (depth > 1) T::template load<2>(out + 2 * sums), T::template load<3>(out + 3 * sums);
  if constexpr (depth > 2) T::template load<4>(out + 4 * sums), T::template load<5>(out + 5 * sums);
  for (int64_t g = 0; g < groups; ++g) {
    const uint16_t *p = m.weights + g * 2 * tile, *v = values + g * m.depth * tile;
    T::template load<6>(p), T::template load<7>(v);
    T::template multiply<0, 7, 6>();
    if constexpr (depth > 1) T::template load<7>(v + tile), T::template multiply<2, 7, 6>();
    if constexpr (depth > 2) T::template load<7>(v + 2 * tile), T::template multiply<4, 7, 6>();
    T::template load<6>(p + tile);
    if constexpr (depth > 2) T::template multiply<5, 7, 6>(), T::template load<7>(v + tile);
    if constexpr (depth > 1) T::template multiply<3, 7, 6>(), T::template load<7>(v);
    T::template multiply<1, 7, 6>();
  }
  T::template store<0>(out), T::template store<1>(out + sums);
  if constexpr (depth > 1) T::template store<2>(out + 2 * sums), T::template store<3>(out + 3 * sums);
  if constexpr (depth > 2) T::template store<4>(out + 4 * sums), T::template store<5>(out + 5 * sums);
}

template <class T>
void add_values(const Places& m, float* out, const uint16_t* values, int64_t groups) {
  int64_t d = 0;
  for (; d + 3 <= m.depth; d += 3) add_values<T, 3>(m, out + d * 2 * sums, values + d * tile, groups);
  if (m.depth - d == 2) add_values<T, 2>(m, out + d * 2 * sums, values + d * tile, groups);
  if (m.depth - d == 1) add_values<T, 1>(m, out + d * 2 * sums, values + d * tile, groups);
}

/// The mean of the values, for a query that sees no key.
void store_mean(const AttentionHead& h, int64_t query) {
  auto* to = static_cast<uint16_t*>(h.out) + query * h.out_stride;
  for (int64_t c = 0; c < h.width; ++c) {
    float sum = 0;
    for (int64_t j = 0; j < h.keys; ++j) sum += load<uint16_t>(element(h.v, j)[c]);
    to[c] = store<uint16_t>(sum / float(h.keys));
  }
}

/// 16 queries, divided by the sums of their weights.
void store_queries(const AttentionHead& h, const Places& m, int64_t query) {
  const float* out = m.out + query / together * m.depth * 2 * sums + query % together / lanes * sums;
  const auto row = [&](int64_t channel) { return _mm512_load_ps(out + channel / lanes * 2 * sums + channel % lanes * lanes); };
  const __m512 total = row(h.width), inverse = _mm512_div_ps(_mm512_set1_ps(1), total);
  const __mmask16 unseeing = _mm512_cmp_ps_mask(total, _mm512_setzero_ps(), _CMP_EQ_OQ);
  for (int64_t c = 0; c < h.width; c += lanes) {
    __m512i r[lanes];
    for (int64_t l = 0; l < lanes; ++l) r[l] = _mm512_castps_si512(_mm512_mul_ps(row(c + l), inverse));
    transpose(r);
    const auto mask = __mmask16(first_bits(h.width - c));
    for (int64_t l = 0; l < lanes && query + l < h.queries; ++l) {
      auto* to = static_cast<uint16_t*>(h.out) + (query + l) * h.out_stride + c;
      _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(r[l])));
    }
  }
  for (int64_t l = 0; unseeing && l < lanes && query + l < h.queries; ++l)
    if (unseeing >> l & 1) store_mean(h, query + l);
}

/// Returns false and does nothing if a query or key is infinite or not a number: those are for a kernel that reports them.
template <class T>
bool attention_by_tiles(const AttentionHead& h) {
  const Places m(h);
  if (!pack_queries(h, m)) return false;
  const int64_t queries = up(h.queries, together);
  for (int64_t i = 0; i < queries * m.depth * lanes; i += lanes) _mm512_store_ps(m.out + i, _mm512_setzero_ps());
  for (int64_t i = 0; i < queries; ++i) m.largest[i] = lowest;
  const float scale = h.scale * 1.44269504f;
  Power power(scale);
  const T tiles;  // ours until the end
  for (int64_t first = 0; first < m.n; first += chunk) {
    const int64_t count = m.n - first < chunk ? m.n - first : chunk;
    if (!pack_keys(h, m, first, count)) return false;
    pack_values(h, m, first, count);
    for (int64_t query = 0; query < h.queries; query += together)
      for (int64_t j = 0; j < count; j += block) {
        const int32_t* index = m.index + first + j;
        const int64_t valid = count - j < block ? count - j : block, rows = up(valid, pair);
        if (h.position >= 0 && index[0] > h.position + query + together - 1) break;  // of these queries none sees them
        for (int64_t k = 0; k < rows; k += pair)
          score<T>(m, m.keys + (j + k) / lanes * m.parts * tile, m.queries + query / lanes * m.parts * tile,
                   m.scores + k / pair * 4 * sums);
        float* out = m.out + query / together * m.depth * 2 * sums;
        for (int64_t half = 0; half < 2; ++half) {
          const int64_t own = query + half * lanes;
          if (rows > valid || (h.position >= 0 && index[valid - 1] > h.position + own)) hide(h, m, index, own, half, rows, valid);
          weigh(m, out, m.largest + own, half, rows, scale, power);
        }
        add_values<T>(m, out, m.values + (j / pair) * m.depth * tile, rows / pair);
      }
  }
  for (int64_t query = 0; query < h.queries; query += lanes) store_queries(h, m, query);
  return true;
}

}  // namespace
}  // namespace brume::nn::kernels
