// The body of attention_kernel.h, included once per instruction set within a namespace of its own. Plain loops over fixed sizes
// that the compiler turns into vectors; eight queries at a time, so that each key is read once for eight.
//
//   s_j = scale q . k_j,  p_j = exp(s_j - max s),  out = sum_j p_j v_j / sum_j p_j,  over the keys that are seen

#include "brume/nn/ops/kernels/numbers.h"
#include "brume/nn/ops/kernels/vectors.h"

constexpr int64_t pair = 2 * lanes;                   // two vectors of keys, or of values, at a time
constexpr int64_t together = 8;                       // queries
constexpr int64_t rows = lanes == 16 ? together : 4;  // of them, as many as there are registers for the sums of a pair

constexpr int64_t whole_pairs(int64_t n) { return (n + pair - 1) / pair * pair; }

constexpr int64_t chunk = 256;  // keys at a time: with their values they stay in the second cache

/// Places in the scratch memory. Of a chunk, `keys`: in tiles of `lanes` keys, [tiles, width, lanes]; `values`: in tiles of
/// `lanes` channels, [tiles, chunk, lanes]; `scores`: [together, chunk]. Of all queries, `queries`: in groups, [groups, width, together],
/// scaled; `sums`: [queries, wide], of `totals` weights relative to that of the `largest` score so far.
struct Scratch {
  int64_t wide;
  float *keys, *values, *scores, *queries, *sums, *largest, *totals;
  explicit Scratch(const AttentionHead& h) : wide(whole_pairs(h.width)) {
    keys = h.scratch;
    values = keys + chunk * h.width;
    scores = values + chunk * wide;
    queries = scores + together * chunk;
    sums = queries + attention_queries * h.width;
    largest = sums + attention_queries * wide;
    totals = largest + attention_queries;
  }
};

/// Returns how many of the first `count` keys are seen.
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

/// scores = scale q . k for a group of queries and the first `n` keys of the chunk. Each sum stays in a register.
inline void score_rows(const Scratch& m, const float* queries, int64_t width, int64_t n) {
  for (int64_t j = 0; j < n; j += pair)
    for (int64_t first = 0; first < together; first += rows) {
      const float* k = m.keys + j * width;
      Vector left[rows] = {}, right[rows] = {};
      for (int64_t c = 0; c < width; ++c) {
        const Vector a = load_vector(k + c * lanes), b = load_vector(k + (width + c) * lanes);
        const float* x = queries + c * together + first;
#pragma GCC unroll 8
        for (int64_t r = 0; r < rows; ++r) left[r] += x[r] * a, right[r] += x[r] * b;
      }
      float* to = m.scores + first * chunk + j;
#pragma GCC unroll 8
      for (int64_t r = 0; r < rows; ++r) store_vector(to + r * chunk, left[r]), store_vector(to + r * chunk + lanes, right[r]);
    }
}

/// s becomes exp(s - largest) over its first n >= 1 values; returns their sum.
inline float exponentials(float* s, int64_t n, float largest) {
  for (int64_t j = 0; j < n; ++j) s[j] = exp_nonpositive(s[j] - largest);
  float parts[16] = {}, total = 0;
  for (int64_t j = 0; j + 16 <= n; j += 16)
    for (int64_t l = 0; l < 16; ++l) parts[l] += s[j + l];
  for (int64_t j = n / 16 * 16; j < n; ++j) total += s[j];
  for (const float part : parts) total += part;
  return total;
}

/// The weights of query `i` of the first n keys of the chunk, relative to its largest score, which may have grown: what it has is scaled.
inline void weigh(const Scratch& m, float* s, int64_t i, int64_t n) {
  float largest = m.totals[i] > 0 ? m.largest[i] : s[0];
  for (int64_t j = 0; j < n; ++j) largest = s[j] > largest ? s[j] : largest;
  if (m.totals[i] > 0 && largest > m.largest[i]) {
    const float less = exp_nonpositive(m.largest[i] - largest);
    float* sums = m.sums + i * m.wide;
    for (int64_t c = 0; c < m.wide; ++c) sums[c] *= less;
    m.totals[i] *= less;
  }
  m.largest[i] = largest;
  m.totals[i] += exponentials(s, n, largest);
}

/// sums += scores times the values of the first `n` keys of the chunk.
inline void add_values(const Scratch& m, float* sums, int64_t n) {
  for (int64_t c = 0; c < m.wide; c += pair)
    for (int64_t first = 0; first < together; first += rows) {
      const float *v = m.values + c * chunk, *p = m.scores + first * chunk;
      float* to = sums + first * m.wide + c;
      Vector left[rows], right[rows];
#pragma GCC unroll 8
      for (int64_t r = 0; r < rows; ++r) left[r] = load_vector(to + r * m.wide), right[r] = load_vector(to + r * m.wide + lanes);
      for (int64_t j = 0; j < n; ++j) {
        const Vector a = load_vector(v + j * lanes), b = load_vector(v + (chunk + j) * lanes);
#pragma GCC unroll 8
        for (int64_t r = 0; r < rows; ++r) left[r] += p[r * chunk + j] * a, right[r] += p[r * chunk + j] * b;
      }
#pragma GCC unroll 8
      for (int64_t r = 0; r < rows; ++r) store_vector(to + r * m.wide, left[r]), store_vector(to + r * m.wide + lanes, right[r]);
    }
}

/// Gathers the next chunk of seen keys, from key `from` on, and their values: what is not seen has no part in anything. Returns how many.
template <class T>
int64_t gather(const AttentionHead& h, const Scratch& m, int64_t& from) {
  const T *k = static_cast<const T*>(h.k.data), *v = static_cast<const T*>(h.v.data);
  int64_t j = 0;
  for (; from < h.keys && j < chunk; ++from) {
    if (h.seen && h.seen[from] == 0) continue;
    float *keys = m.keys + j / lanes * lanes * h.width + j % lanes, *values = m.values + j * lanes;
    for (int64_t c = 0; c < h.width; ++c) keys[c * lanes] = load<T>(k[from * h.k.stride + c]);
    for (int64_t c = 0; c < m.wide; ++c)
      values[c / lanes * lanes * chunk + c % lanes] = c < h.width ? load<T>(v[from * h.v.stride + c]) : 0;
    ++j;
  }
  for (int64_t hole = j; hole % pair != 0; ++hole)  // of the last tiles of keys
    for (int64_t c = 0; c < h.width; ++c) m.keys[hole / lanes * lanes * h.width + c * lanes + hole % lanes] = 0;
  return j;
}

/// All queries, scaled, and nothing seen yet. The last group is filled up with its first query.
template <class T>
void begin(const AttentionHead& h, const Scratch& m) {
  const T* q = static_cast<const T*>(h.q.data);
  for (int64_t i = 0; i < (h.queries + together - 1) / together * together; ++i) {
    const int64_t first = i / together * together;
    const T* row = q + (i < h.queries ? i : first) * h.q.stride;
    float* to = m.queries + first * h.width + i % together;
    for (int64_t c = 0; c < h.width; ++c) to[c * together] = load<T>(row[c]) * h.scale;
    for (int64_t c = 0; c < m.wide; ++c) m.sums[i * m.wide + c] = 0;
    m.totals[i] = 0;
  }
}

/// A group of queries and the chunk whose `n` keys are the seen ones from `done` on.
inline void attend_group(const AttentionHead& h, const Scratch& m, int64_t first, int64_t done, int64_t n) {
  int64_t limits[together], most = 0;
  for (int64_t r = 0; r < together; ++r) {
    const int64_t i = first + r < h.queries ? first + r : first, before = h.position + i + 1;
    const int64_t limit = h.position < 0 || before >= h.keys ? n : seen_among(h, before) - done;
    limits[r] = limit < 0 ? 0 : limit > n ? n : limit;
    most = limits[r] > most ? limits[r] : most;
  }
  if (most == 0) return;
  score_rows(m, m.queries + first * h.width, h.width, most);
  for (int64_t r = 0; r < together; ++r) {
    float* s = m.scores + r * chunk;
    if (limits[r] > 0) weigh(m, s, first + r, limits[r]);
    for (int64_t j = limits[r]; j < most; ++j) s[j] = 0;
  }
  add_values(m, m.sums + first * m.wide, most);
}

template <class T>
void attend(const AttentionHead& h) {
  const Scratch m(h);
  begin<T>(h, m);
  for (int64_t from = 0, done = 0; from < h.keys;) {
    const int64_t n = gather<T>(h, m, from);
    for (int64_t first = 0; n > 0 && first < h.queries; first += together) attend_group(h, m, first, done, n);
    done += n;
  }
  for (int64_t i = 0; i < h.queries; ++i) {
    T* out = static_cast<T*>(h.out) + i * h.out_stride;
    const float inverse = 1 / m.totals[i];
    if (m.totals[i] == 0)
      mean_of_values<T>(h, out, m.sums + i * m.wide);
    else
      for (int64_t c = 0; c < h.width; ++c) out[c] = store<T>(m.sums[i * m.wide + c] * inverse);
  }
}
