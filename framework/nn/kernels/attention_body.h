// The body of attention_kernel.h, included once per instruction set within a namespace of its own. Plain loops over fixed sizes
// that the compiler turns into vectors; four queries at a time, so that each key is read once for four.
//
//   s_j = q . k_j,  p_j = exp((s_j - max s) scale),  out = sum_j p_j v_j / sum_j p_j

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

template <class T>
void attend_rows(const AttentionHead& h, int64_t first, int64_t count, const float* keys_t, const float* values, float* scores,
                 float* sums) {
  const T* q = static_cast<const T*>(h.q.data);
  T* out = static_cast<T*>(h.out);
  const int64_t n = h.keys, d = h.width;
  for (int64_t i = 0; i < together * n; ++i) scores[i] = 0;
  for (int64_t c = 0; c < d; ++c) {
    float x[together];
    for (int64_t r = 0; r < together; ++r) x[r] = load<T>(q[(first + (r < count ? r : 0)) * h.q.stride + c]) * h.scale;
    const float* k = keys_t + c * n;
    float *s0 = scores, *s1 = scores + n, *s2 = scores + 2 * n, *s3 = scores + 3 * n;
    for (int64_t j = 0; j < n; ++j) {
      s0[j] += x[0] * k[j];
      s1[j] += x[1] * k[j];
      s2[j] += x[2] * k[j];
      s3[j] += x[3] * k[j];
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    float* s = scores + r * n;
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
    for (int64_t c = 0; c < d; ++c) out[(first + r) * h.out_stride + c] = store<T>(sums[c] * inverse);
  }
}

template <class T>
void attend(const AttentionHead& h) {
  const int64_t n = h.keys, d = h.width;
  float *keys_t = h.scratch, *values = keys_t + n * d, *scores = values + n * d, *sums = scores + together * n;
  const T *k = static_cast<const T*>(h.k.data), *v = static_cast<const T*>(h.v.data);
  for (int64_t j = 0; j < n; ++j)
    for (int64_t c = 0; c < d; ++c) {
      keys_t[c * n + j] = load<T>(k[j * h.k.stride + c]);
      values[j * d + c] = load<T>(v[j * h.v.stride + c]);
    }
  for (int64_t first = 0; first < h.queries; first += together)
    attend_rows<T>(h, first, h.queries - first < together ? h.queries - first : together, keys_t, values, scores, sums);
}
