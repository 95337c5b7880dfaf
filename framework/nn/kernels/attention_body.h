// The body of attention_kernel.h, included once per instruction set within a namespace of its own. Plain loops over fixed sizes
// that the compiler turns into vectors; four queries at a time, so that each key is read once for four.
//
//   s_j = scale q . k_j,  p_j = exp(s_j - max s),  out = sum_j p_j v_j / sum_j p_j,  over the keys that are seen

template <class T>
float load(T value);
template <>
inline float load<float>(float value) {
  return value;
}
template <>
inline float load<uint16_t>(uint16_t value) {
  return __builtin_bit_cast(float, uint32_t(value) << 16);
}

template <class T>
T store(float value);
template <>
inline float store<float>(float value) {
  return value;
}
template <>
inline uint16_t store<uint16_t>(float value) {  // round to nearest even
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/// exp(x) for x <= 0, relative error below 3e-7: 2^n times a polynomial in the rest (Cody & Waite).
inline float exp_nonpositive(float x) {
  const float t = (x < -87.0f ? -87.0f : x) * 1.44269504f;
  const float n = __builtin_floorf(t + 0.5f), f = t - n;
  float p = 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  return p * __builtin_bit_cast(float, (int32_t(n) + 127) << 23);
}

constexpr int64_t together = 4;  // queries

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

/// s_r = scale q_r . k for `together` queries and the first `n` of `stride` gathered keys; missing queries repeat the first.
template <class T>
void score_rows(const AttentionHead& h, int64_t first, int64_t count, int64_t n, int64_t stride, const float* keys_t, float* scores) {
  const T* q = static_cast<const T*>(h.q.data);
  float *s0 = scores, *s1 = scores + stride, *s2 = scores + 2 * stride, *s3 = scores + 3 * stride;
  for (int64_t i = 0; i < together * stride; ++i) scores[i] = 0;
  for (int64_t c = 0; c < h.width; ++c) {
    float x[together];
    for (int64_t r = 0; r < together; ++r) x[r] = load<T>(q[(first + (r < count ? r : 0)) * h.q.stride + c]) * h.scale;
    const float* k = keys_t + c * stride;
    for (int64_t j = 0; j < n; ++j) {
      s0[j] += x[0] * k[j];
      s1[j] += x[1] * k[j];
      s2[j] += x[2] * k[j];
      s3[j] += x[3] * k[j];
    }
  }
}

/// out = softmax(s) values, over n >= 1 keys; s is overwritten.
template <class T>
void weigh_values(float* s, int64_t n, int64_t d, const float* values, float* sums, T* out) {
  float largest = s[0];
  for (int64_t j = 1; j < n; ++j) largest = s[j] > largest ? s[j] : largest;
  for (int64_t j = 0; j < n; ++j) s[j] = exp_nonpositive(s[j] - largest);
  float lanes[16] = {}, total = 0;
  for (int64_t j = 0; j + 16 <= n; j += 16)
    for (int64_t l = 0; l < 16; ++l) lanes[l] += s[j + l];
  for (int64_t j = n / 16 * 16; j < n; ++j) total += s[j];
  for (const float lane : lanes) total += lane;
  for (int64_t c = 0; c < d; ++c) sums[c] = 0;
  for (int64_t j = 0; j < n; ++j) {
    const float p = s[j];
    const float* v = values + j * d;
    for (int64_t c = 0; c < d; ++c) sums[c] += p * v[c];
  }
  const float inverse = 1 / total;
  for (int64_t c = 0; c < d; ++c) out[c] = store<T>(sums[c] * inverse);
}

/// The seen keys, turned, and their values: what is not seen has no part in anything.
template <class T>
void gather(const AttentionHead& h, int64_t n, float* keys_t, float* values) {
  const T *k = static_cast<const T*>(h.k.data), *v = static_cast<const T*>(h.v.data);
  for (int64_t from = 0, j = 0; from < h.keys; ++from) {
    if (h.seen && h.seen[from] == 0) continue;
    for (int64_t c = 0; c < h.width; ++c) {
      keys_t[c * n + j] = load<T>(k[from * h.k.stride + c]);
      values[j * h.width + c] = load<T>(v[from * h.v.stride + c]);
    }
    ++j;
  }
}

template <class T>
void attend(const AttentionHead& h) {
  const int64_t n = seen_among(h, h.keys), d = h.width;
  float *keys_t = h.scratch, *values = keys_t + n * d, *scores = values + n * d, *sums = scores + together * n;
  gather<T>(h, n, keys_t, values);
  T* out = static_cast<T*>(h.out);
  for (int64_t first = 0; first < h.queries; first += together) {
    const int64_t count = h.queries - first < together ? h.queries - first : together;
    int64_t limits[together], most = 0;  // a query sees the gathered keys before its limit
    for (int64_t r = 0; r < count; ++r) {
      const int64_t before = h.position + first + r + 1;
      limits[r] = h.position < 0 || before >= h.keys ? n : seen_among(h, before);
      most = limits[r] > most ? limits[r] : most;
    }
    score_rows<T>(h, first, count, most, n, keys_t, scores);
    for (int64_t r = 0; r < count; ++r) {
      T* row = out + (first + r) * h.out_stride;
      if (limits[r] == 0)
        mean_of_values<T>(h, row, sums);
      else
        weigh_values<T>(scores + r * n, limits[r], d, values, sums, row);
    }
  }
}
