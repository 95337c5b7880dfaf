// The body of attention_kernel.h, included once per instruction set within a namespace of its own. Plain loops over fixed sizes
// that the compiler turns into vectors; eight queries at a time, so that each key is read once for eight.
//
//   s_j = scale q . k_j,  p_j = exp(s_j - max s),  out = sum_j p_j v_j / sum_j p_j,  over the keys that are seen

#include "nn/kernels/numbers.h"

#if defined(__AVX512F__)
constexpr int64_t lanes = 16;
#elif defined(__AVX2__)
constexpr int64_t lanes = 8;
#else
constexpr int64_t lanes = 4;
#endif
constexpr int64_t together = 8;  // queries
typedef float Vector __attribute__((vector_size(lanes * sizeof(float))));

inline Vector load_vector(const float* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
inline void store_vector(float* to, const Vector& v) { __builtin_memcpy(to, &v, sizeof v); }
constexpr int64_t whole_vectors(int64_t n) { return (n + lanes - 1) / lanes * lanes; }

/// Where things lie in the scratch memory. `keys`: of the seen, in tiles of `lanes` keys, [tiles, width, lanes]; `values`: [n, wide];
/// `scores`: [together, row]; `queries`: [width, together], scaled; `sums`: [together, wide].
struct Scratch {
  int64_t n, row, wide;
  float *keys, *values, *scores, *queries, *sums;
  Scratch(const AttentionHead& h, int64_t seen) : n(seen), row(whole_vectors(seen)), wide(whole_vectors(h.width)) {
    keys = h.scratch;
    values = keys + row * h.width;
    scores = values + n * wide;
    queries = scores + together * row;
    sums = queries + together * h.width;
  }
};

/// How many of the first `count` keys are seen.
inline int64_t seen_among(const AttentionHead& h, int64_t count) {
  if (!h.seen) return count;
  int64_t seen = 0;
  for (int64_t j = 0; j < count; ++j) seen += h.seen[j] != 0;
  return seen;
}

/// For a query that sees no key.
template <class T>
void mean_of_values(const AttentionHead& h, T* out, float* sums) {
  const T* v = static_cast<const T*>(h.v.data);
  for (int64_t c = 0; c < h.width; ++c) sums[c] = 0;
  for (int64_t j = 0; j < h.keys; ++j)
    for (int64_t c = 0; c < h.width; ++c) sums[c] += load<T>(v[j * h.v.stride + c]);
  for (int64_t c = 0; c < h.width; ++c) out[c] = store<T>(sums[c] / float(h.keys));
}

/// scores = scale q . k for `together` queries and the first `n` keys. Each sum stays in a register.
inline void score_rows(const Scratch& m, int64_t width, int64_t n) {
  for (int64_t j = 0; j < n; j += lanes) {
    const float* k = m.keys + j * width;
    Vector sum[together] = {};
    for (int64_t c = 0; c < width; ++c) {
      const Vector key = load_vector(k + c * lanes);
      const float* x = m.queries + c * together;
#pragma GCC unroll 8
      for (int64_t r = 0; r < together; ++r) sum[r] += x[r] * key;
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < together; ++r) store_vector(m.scores + r * m.row + j, sum[r]);
  }
}

/// s becomes exp(s - max s) over its first n >= 1 values; returns their sum.
inline float exponentials(float* s, int64_t n) {
  float largest = s[0];
  for (int64_t j = 1; j < n; ++j) largest = s[j] > largest ? s[j] : largest;
  for (int64_t j = 0; j < n; ++j) s[j] = exp_nonpositive(s[j] - largest);
  float parts[16] = {}, total = 0;
  for (int64_t j = 0; j + 16 <= n; j += 16)
    for (int64_t l = 0; l < 16; ++l) parts[l] += s[j + l];
  for (int64_t j = n / 16 * 16; j < n; ++j) total += s[j];
  for (const float part : parts) total += part;
  return total;
}

/// sums = scores times the values of the first `n` keys.
inline void weigh_values(const Scratch& m, int64_t n) {
  for (int64_t c = 0; c < m.wide; c += lanes) {
    Vector sum[together] = {};
    for (int64_t j = 0; j < n; ++j) {
      const Vector value = load_vector(m.values + j * m.wide + c);
      const float* p = m.scores + j;
#pragma GCC unroll 8
      for (int64_t r = 0; r < together; ++r) sum[r] += p[r * m.row] * value;
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < together; ++r) store_vector(m.sums + r * m.wide + c, sum[r]);
  }
}

/// The seen keys and their values: what is not seen has no part in anything.
template <class T>
void gather(const AttentionHead& h, const Scratch& m) {
  const T *k = static_cast<const T*>(h.k.data), *v = static_cast<const T*>(h.v.data);
  for (int64_t i = m.n / lanes * lanes * h.width; i < m.row * h.width; ++i) m.keys[i] = 0;
  for (int64_t from = 0, j = 0; from < h.keys; ++from) {
    if (h.seen && h.seen[from] == 0) continue;
    float *keys = m.keys + j / lanes * lanes * h.width + j % lanes, *values = m.values + j * m.wide;
    for (int64_t c = 0; c < h.width; ++c) {
      keys[c * lanes] = load<T>(k[from * h.k.stride + c]);
      values[c] = load<T>(v[from * h.v.stride + c]);
    }
    for (int64_t c = h.width; c < m.wide; ++c) values[c] = 0;
    ++j;
  }
}

/// Queries [first, first + count), count <= together; of them, r sees the gathered keys before limits[r].
template <class T>
void attend_rows(const AttentionHead& h, const Scratch& m, int64_t first, int64_t count, const int64_t* limits, int64_t most) {
  const T* q = static_cast<const T*>(h.q.data);
  for (int64_t r = 0; r < together; ++r)  // those that are missing repeat the first
    for (int64_t c = 0; c < h.width; ++c)
      m.queries[c * together + r] = load<T>(q[(first + (r < count ? r : 0)) * h.q.stride + c]) * h.scale;
  score_rows(m, h.width, most);
  float totals[together] = {};
  for (int64_t r = 0; r < count; ++r) {
    float* s = m.scores + r * m.row;
    if (limits[r] > 0) totals[r] = exponentials(s, limits[r]);
    for (int64_t j = limits[r]; j < most; ++j) s[j] = 0;
  }
  weigh_values(m, most);
  for (int64_t r = 0; r < count; ++r) {
    T* out = static_cast<T*>(h.out) + (first + r) * h.out_stride;
    const float inverse = 1 / totals[r];
    if (limits[r] == 0)
      mean_of_values<T>(h, out, m.sums + r * m.wide);
    else
      for (int64_t c = 0; c < h.width; ++c) out[c] = store<T>(m.sums[r * m.wide + c] * inverse);
  }
}

template <class T>
void attend(const AttentionHead& h) {
  const Scratch m(h, seen_among(h, h.keys));
  gather<T>(h, m);
  for (int64_t first = 0; first < h.queries; first += together) {
    const int64_t count = h.queries - first < together ? h.queries - first : together;
    int64_t limits[together], most = 0;
    for (int64_t r = 0; r < count; ++r) {
      const int64_t before = h.position + first + r + 1;
      limits[r] = h.position < 0 || before >= h.keys ? m.n : seen_among(h, before);
      most = limits[r] > most ? limits[r] : most;
    }
    attend_rows<T>(h, m, first, count, limits, most);
  }
}
