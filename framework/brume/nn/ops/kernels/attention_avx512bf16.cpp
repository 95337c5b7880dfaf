// attention_kernel.h for bfloat16, by the processor's own products of pairs. Keys are taken a chunk at a time, and what came before is
// scaled down when a greater score turns up (Milakov & Gimelshein 2018), so that scores stay in the nearest cache:
//
//   m' = max(m, max s),  out = out exp(m - m') + sum_j exp(s_j - m') v_j,  total likewise;  at the end out / total
#include <immintrin.h>

#include <cmath>
#include <initializer_list>

#include "brume/nn/ops/kernels/attention_kernel.h"

namespace brume::nn::kernels {
namespace {

#include "brume/nn/ops/kernels/numbers.h"

constexpr int64_t lanes = 16, together = 8, chunk = 256;  // keys of a tile, queries, keys of a chunk
constexpr int64_t pair = 2 * lanes;                       // elements of a packed vector

constexpr int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Places in the scratch memory. `keys` of a chunk: [tiles, width / 2, 16 keys, 2]; `values`: [wide / 16, chunk / 2, 16 channels,
/// 2]; `queries`: [queries, 2 pairs]; `out`: [queries, wide]; `largest` and `total`: [queries]; `index`: of the keys that are seen.
struct Scratch {
  int64_t n = 0, pairs, wide;
  float *scores, *out, *largest, *total;
  uint16_t *keys, *values, *weights, *queries;
  int32_t* index;

  explicit Scratch(const AttentionHead& h) : pairs((h.width + 1) / 2), wide(up(h.width, lanes)) {
    float* at = h.scratch;
    const auto take = [&](int64_t floats) {
      float* const begin = at;
      at += floats;
      return begin;
    };
    const auto halves = [&](int64_t count) { return reinterpret_cast<uint16_t*>(take((count + 1) / 2)); };
    scores = take(together * chunk), out = take(h.queries * wide), largest = take(h.queries), total = take(h.queries);
    keys = halves(chunk * pairs * 2), values = halves(chunk * wide), weights = halves(together * chunk);
    queries = halves(up(h.queries, together) * pairs * 2);
    index = reinterpret_cast<int32_t*>(take(h.keys));
    for (int64_t j = 0; j < h.keys; ++j)
      if (!h.seen || h.seen[j] != 0) index[n++] = int32_t(j);
  }
};

const uint16_t* element(const Rows& rows, int64_t row) { return static_cast<const uint16_t*>(rows.data) + row * rows.stride; }

/// Two elements, the second 0 if the row ends.
inline int32_t two_elements(const uint16_t* row, int64_t c, int64_t width) {
  return int32_t(row[c] | (c + 1 < width ? uint32_t(row[c + 1]) << 16 : 0));
}

void pack_queries(const AttentionHead& h, const Scratch& m) {
  auto* to = reinterpret_cast<int32_t*>(m.queries);
  for (int64_t i = 0; i < up(h.queries, together); ++i) {
    const uint16_t* q = element(h.q, i < h.queries ? i : 0);  // those that are missing repeat the first
    for (int64_t p = 0; p < m.pairs; ++p) to[i * m.pairs + p] = two_elements(q, 2 * p, h.width);
  }
}

/// Seen keys [first, first + count); zeros up to an even number of tiles.
void pack_keys(const AttentionHead& h, const Scratch& m, int64_t first, int64_t count) {
  auto* to = reinterpret_cast<int32_t*>(m.keys);
  for (int64_t j = 0; j < up(count, 2 * lanes); ++j) {
    int32_t* tile = to + j / lanes * m.pairs * lanes + j % lanes;
    const uint16_t* k = j < count ? element(h.k, m.index[first + j]) : nullptr;
    for (int64_t p = 0; p < m.pairs; ++p) tile[p * lanes] = k ? two_elements(k, 2 * p, h.width) : 0;
  }
}

void pack_values(const AttentionHead& h, const Scratch& m, int64_t first, int64_t count) {
  for (int64_t j = 0; j < up(count, 2); j += 2) {
    const uint16_t* a = element(h.v, m.index[first + j]);
    const uint16_t* b = j + 1 < count ? element(h.v, m.index[first + j + 1]) : nullptr;
    for (int64_t c = 0; c < m.wide; c += lanes) {
      const int64_t here = h.width - c;
      const __mmask16 mask = here >= lanes ? 0xffff : here > 0 ? __mmask16((1 << here) - 1) : 0;
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, a + c));
      const __m512i high = b ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, b + c)) : _mm512_setzero_si512();
      _mm512_storeu_si512(m.values + (c / lanes * (chunk / 2) + j / 2) * pair, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}

inline __m512bh halves_at(const uint16_t* from) { return (__m512bh)_mm512_loadu_si512(from); }
inline __m512bh all_of(const uint16_t* two_of) { return (__m512bh)_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(two_of)); }

/// scores = q . k for `together` queries and the packed keys.
void score(const Scratch& m, const uint16_t* q, int64_t count) {
  for (int64_t j = 0; j < count; j += 2 * lanes) {
    const uint16_t *k0 = m.keys + j / lanes * m.pairs * pair, *k1 = k0 + m.pairs * pair;
    __m512 sum0[together], sum1[together];
#pragma GCC unroll 8
    for (int64_t r = 0; r < together; ++r) sum0[r] = sum1[r] = _mm512_setzero_ps();
    for (int64_t p = 0; p < m.pairs; ++p) {
      const __m512bh a = halves_at(k0 + p * pair), b = halves_at(k1 + p * pair);
#pragma GCC unroll 8
      for (int64_t r = 0; r < together; ++r) {
        const __m512bh x = all_of(q + (r * m.pairs + p) * 2);
        sum0[r] = _mm512_dpbf16_ps(sum0[r], x, a), sum1[r] = _mm512_dpbf16_ps(sum1[r], x, b);
      }
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < together; ++r) {
      _mm512_storeu_ps(m.scores + r * chunk + j, sum0[r]);
      _mm512_storeu_ps(m.scores + r * chunk + j + lanes, sum1[r]);
    }
  }
}

/// 2^x for x <= 0, relative error below 5e-5 (a bfloat16 distinguishes 4e-3); not a number if x is none.
inline __m512 power_of_two(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-200), x);
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.6181291e-3f);
  for (const float c : {5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f}) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
  return _mm512_scalef_ps(p, n);
}

/// The scores of a query become weights in bfloat16, those of the keys from `limit` on 0; what came before is scaled to them.
void weigh(const Scratch& m, int64_t query, const float* s, uint16_t* weights, int64_t count, int64_t limit, float scale) {
  __m512 most = _mm512_set1_ps(-INFINITY);
  const auto mask = [&](int64_t j) {
    return limit - j >= lanes ? __mmask16(0xffff) : limit > j ? __mmask16((1 << (limit - j)) - 1) : __mmask16(0);
  };
  for (int64_t j = 0; j < limit; j += lanes) most = _mm512_mask_max_ps(most, mask(j), most, _mm512_loadu_ps(s + j));
  const float before = m.largest[query], now = _mm512_reduce_max_ps(most) * scale, largest = now > before ? now : before;
  __m512 sum = _mm512_setzero_ps();
  for (int64_t j = 0; j < up(count, 2); j += lanes) {
    const __m512 t = _mm512_fmsub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(scale), _mm512_set1_ps(largest));
    const __m512 w = _mm512_maskz_mov_ps(mask(j), power_of_two(t));
    sum = _mm512_add_ps(sum, w);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + j), (__m256i)_mm512_cvtneps_pbh(w));
  }
  const float fade = before == -INFINITY ? 0 : _mm512_cvtss_f32(power_of_two(_mm512_set1_ps(before - largest)));
  m.total[query] = m.total[query] * fade + _mm512_reduce_add_ps(sum);
  m.largest[query] = largest;
  float* out = m.out + query * m.wide;
  if (fade != 1)
    for (int64_t c = 0; c < m.wide; c += lanes) _mm512_storeu_ps(out + c, _mm512_mul_ps(_mm512_loadu_ps(out + c), _mm512_set1_ps(fade)));
}

/// out += weights . v for `rows` queries from `query` on, in 16 `tiles` channels from c on.
template <int64_t tiles>
void add_values(const Scratch& m, int64_t query, int64_t rows, int64_t count, int64_t c) {
  constexpr int64_t tile = chunk / 2 * pair;
  const uint16_t* v = m.values + c / lanes * tile;
  __m512 sum[tiles][together];
#pragma GCC unroll 8
  for (int64_t r = 0; r < together; ++r)
    for (int64_t t = 0; t < tiles; ++t) sum[t][r] = _mm512_setzero_ps();
  for (int64_t j = 0; j < up(count, 2); j += 2) {
    __m512bh values[tiles];
    for (int64_t t = 0; t < tiles; ++t) values[t] = halves_at(v + t * tile + j * lanes);
#pragma GCC unroll 8
    for (int64_t r = 0; r < together; ++r) {
      const __m512bh x = all_of(m.weights + r * chunk + j);
      for (int64_t t = 0; t < tiles; ++t) sum[t][r] = _mm512_dpbf16_ps(sum[t][r], x, values[t]);
    }
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t t = 0; t < tiles; ++t) {
      float* out = m.out + (query + r) * m.wide + c + t * lanes;
      _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), sum[t][r]));
    }
}

void store_row(const AttentionHead& h, const Scratch& m, int64_t query) {
  auto* to = static_cast<uint16_t*>(h.out) + query * h.out_stride;
  const float* out = m.out + query * m.wide;
  if (m.largest[query] != -INFINITY || std::isnan(m.total[query])) {
    const float inverse = 1 / m.total[query];
    for (int64_t c = 0; c < h.width; ++c) to[c] = store<uint16_t>(out[c] * inverse);
    return;
  }
  for (int64_t c = 0; c < h.width; ++c) {  // sees no key
    float sum = 0;
    for (int64_t j = 0; j < h.keys; ++j) sum += load<uint16_t>(element(h.v, j)[c]);
    to[c] = store<uint16_t>(sum / float(h.keys));
  }
}

}  // namespace

void attention_avx512bf16(const AttentionHead& h) {
  const Scratch m(h);
  pack_queries(h, m);
  for (int64_t i = 0; i < h.queries * m.wide; ++i) m.out[i] = 0;
  for (int64_t i = 0; i < h.queries; ++i) m.largest[i] = -INFINITY, m.total[i] = 0;
  const float scale = h.scale * 1.44269504f;
  // Of the seen keys, those that a query sees; not by <algorithm>, whose templates would be compiled for this processor and shared.
  const auto limit_of = [&](int64_t query) {
    if (h.position < 0) return m.n;
    int64_t low = 0, high = m.n;  // the first that comes after it
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (m.index[middle] <= h.position + query)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  };
  for (int64_t first = 0; first < m.n; first += chunk) {
    const int64_t count = m.n - first < chunk ? m.n - first : chunk;
    pack_keys(h, m, first, count);
    pack_values(h, m, first, count);
    for (int64_t query = 0; query < h.queries; query += together) {
      const int64_t rows = h.queries - query < together ? h.queries - query : together;
      if (limit_of(query + rows - 1) <= first) continue;
      score(m, m.queries + query * m.pairs * 2, count);
      for (int64_t r = 0; r < together; ++r) {
        uint16_t* weights = m.weights + r * chunk;
        const int64_t limit = r < rows ? limit_of(query + r) - first : 0;
        if (limit > 0)
          weigh(m, query + r, m.scores + r * chunk, weights, count, limit < count ? limit : count, scale);
        else
          for (int64_t j = 0; j < up(count, 2); ++j) weights[j] = 0;
      }
      int64_t c = 0;
      for (; c + 3 * lanes <= m.wide; c += 3 * lanes) add_values<3>(m, query, rows, count, c);
      if (m.wide - c == 2 * lanes) add_values<2>(m, query, rows, count, c);
      if (m.wide - c == lanes) add_values<1>(m, query, rows, count, c);
    }
  }
  for (int64_t query = 0; query < h.queries; ++query) store_row(h, m, query);
}

}  // namespace brume::nn::kernels
