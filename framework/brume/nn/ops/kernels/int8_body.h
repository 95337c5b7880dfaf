// The body of int8_kernel.h, included once per instruction set within a namespace of its own. Multiplications and additions of floats are
// never contracted (-ffp-contract=off), so that all sets give the same bits.

#if defined(__AVX512F__)
constexpr int64_t lanes = 16;
constexpr int64_t together = 12;  // rows, as many as there are registers for the sums of a panel
#else
#if defined(__AVX2__)
constexpr int64_t lanes = 8;
#else
constexpr int64_t lanes = 4;
#endif
constexpr int64_t together = 4;
#endif
constexpr int64_t vectors = int8_panel / lanes;
constexpr int64_t part = 256;  // quads of a panel that are multiplied by all rows of a block before the next ones: 16 KiB
constexpr float no_number = __builtin_nanf(""), infinite = __builtin_inff();

typedef float Floats __attribute__((vector_size(lanes * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(lanes * sizeof(int32_t))));
typedef int8_t Bytes __attribute__((vector_size(lanes * 4)));

template <class V>
inline V load(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class V>
inline void store(void* to, const V& v) {
  __builtin_memcpy(to, &v, sizeof v);
}

/// sum += q v of four values, for each lane's output channel. `quad`: four bytes of a row.
inline Ints add_products(const Ints& sum, int32_t quad, const Bytes& weights) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(quad), (__m512i)weights);
#elif defined(__AVX512F__)
  return sum + (Ints)_mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_set1_epi32(quad), (__m512i)weights), _mm512_set1_epi16(1));
#elif defined(__AVX2__)
  return sum + (Ints)_mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi32(quad), (__m256i)weights), _mm256_set1_epi16(1));
#else
  uint8_t q[4];
  int8_t v[lanes * 4];
  int32_t s[lanes];
  __builtin_memcpy(q, &quad, sizeof q);
  store(v, weights);
  store(s, sum);
  for (int64_t l = 0; l < lanes; ++l) s[l] += q[0] * v[4 * l] + q[1] * v[4 * l + 1] + q[2] * v[4 * l + 2] + q[3] * v[4 * l + 3];
  return load<Ints>(s);
#endif
}

inline void ranges(const float* x, int64_t count, int64_t channels, Int8Range* to) {
  for (int64_t i = 0; i < count; ++i, x += channels) {
    Floats low{}, high{}, rest{};
    int64_t c = 0;
    for (; c + lanes <= channels; c += lanes) {
      const Floats v = load<Floats>(x + c);
      low = v < low ? v : low;
      high = v > high ? v : high;
      rest += v - v;  // zero for a finite number, else none
    }
    float least = 0, most = 0, left = 0;
    const auto take = [&](float a, float b, float r) {
      least = a < least ? a : least;
      most = b > most ? b : most;
      left += r;
    };
    for (int64_t l = 0; l < lanes; ++l) take(low[l], high[l], rest[l]);
    for (; c < channels; ++c) take(x[c], x[c], x[c] - x[c]);
    to[i] = left == 0 ? Int8Range{least, most} : Int8Range{-infinite, infinite};
  }
}

/// The nearest integer, the even one of two, of a number below 2^22: its last bits after this is added.
constexpr float round_by = 12582912.0f;
constexpr int32_t round_bits = 0x4b400000;

inline int32_t nearest(float x) { return __builtin_bit_cast(int32_t, x + round_by) - round_bits; }
inline Ints nearest(const Floats& x) { return (Ints)(x + round_by) - round_bits; }

inline void quantise_line(const float* x, int64_t count, float inverse, int32_t zero, uint8_t* to) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + lanes <= count; i += lanes) {
    const Ints q = nearest(load<Floats>(x + i) * inverse) + zero;
    store(to + i, _mm512_maskz_cvtusepi32_epi8(0xffff, (__m512i)(q > 0 ? q : Ints{})));
  }
#elif defined(__AVX2__)
  for (; i + 32 <= count; i += 32) {
    __m256i q[4];
#pragma GCC unroll 4
    for (int64_t k = 0; k < 4; ++k) q[k] = (__m256i)(nearest(load<Floats>(x + i + k * lanes) * inverse) + zero);
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    store(to + i, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
#endif
  for (; i < count; ++i) {
    const int32_t q = nearest(x[i] * inverse) + zero;
    to[i] = uint8_t(q < 0 ? 0 : q > 255 ? 255 : q);
  }
}

/// Calls `use` with the pixel of each tap of a row, -1 outside of the image.
template <class F>
inline void for_taps(const Int8Call& call, int64_t row, const F& use) {
  const int64_t image = row / (call.out_height * call.out_width), y = row / call.out_width % call.out_height, x = row % call.out_width;
  for (int64_t dy = 0; dy < call.kernel; ++dy)
    for (int64_t dx = 0; dx < call.kernel; ++dx) {
      const int64_t v = y * call.stride - call.padding + dy, u = x * call.stride - call.padding + dx;
      const bool within = v >= 0 && v < call.height && u >= 0 && u < call.width;
      use(dy * call.kernel + dx, within ? (image * call.height + v) * call.width + u : -1);
    }
}

inline void quantise(const Int8Call& call, const Int8Range* of, int64_t first, int64_t count, uint8_t* values, Int8Row* rows) {
  const int64_t depth = call.depth(), bytes = int8_row_bytes(depth);
  constexpr float least = 1e-30f;  // of a range; a smaller one is zero
  for (int64_t i = 0; i < count; ++i) {
    uint8_t* const to = values + i * bytes;
    float low = 0, high = 0;
    for_taps(call, first + i, [&](int64_t, int64_t pixel) {
      if (pixel < 0) return;
      low = of[pixel].low < low ? of[pixel].low : low;
      high = of[pixel].high > high ? of[pixel].high : high;
    });
    const float span = high - low;
    const bool finite = span - span == 0, flat = !(span >= least);
    const float inverse = finite && !flat ? 255 / span : 0;
    const int32_t zero = finite && !flat ? nearest(-low * inverse) : 0;
    rows[i] = {!finite ? no_number : flat ? 0 : span / 255, zero};
    for_taps(call, first + i, [&](int64_t tap, int64_t pixel) {
      uint8_t* const at = to + tap * call.channels;
      if (pixel >= 0 && inverse > 0) return quantise_line(call.x + pixel * call.channels, call.channels, inverse, zero, at);
      __builtin_memset(at, zero, std::size_t(call.channels));
    });
    __builtin_memset(to + depth, 0, std::size_t(int8_quads(depth) * 4 - depth));
  }
}

/// sums [n, panel] (+)= values [n, quads] weights [quads, panel].
template <int n>
void add_rows(const uint8_t* values, int64_t bytes, const int8_t* weights, int64_t quads, int32_t* sums, bool begin) {
  Ints sum[n][vectors];
#pragma GCC unroll 12
  for (int r = 0; r < n; ++r)
#pragma GCC unroll 4
    for (int64_t v = 0; v < vectors; ++v) sum[r][v] = begin ? Ints{} : load<Ints>(sums + r * int8_panel + v * lanes);
  for (int64_t q = 0; q < quads; ++q) {
    Bytes of[vectors];
#pragma GCC unroll 4
    for (int64_t v = 0; v < vectors; ++v) of[v] = load<Bytes>(weights + (q * int8_panel + v * lanes) * 4);
#pragma GCC unroll 12
    for (int r = 0; r < n; ++r) {
      const auto quad = load<int32_t>(values + r * bytes + q * 4);
#pragma GCC unroll 4
      for (int64_t v = 0; v < vectors; ++v) sum[r][v] = add_products(sum[r][v], quad, of[v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < n; ++r)
#pragma GCC unroll 4
    for (int64_t v = 0; v < vectors; ++v) store(sums + r * int8_panel + v * lanes, sum[r][v]);
}

using AddRows = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, bool);
constexpr AddRows add_some[] = {add_rows<1>,  add_rows<2>,  add_rows<3>, add_rows<4>,
#if defined(__AVX512F__)
                                add_rows<5>,  add_rows<6>,  add_rows<7>, add_rows<8>, add_rows<9>,
                                add_rows<10>, add_rows<11>, add_rows<12>
#endif
};

/// One row of a panel, from `o` on.
inline void write(const Int8Call& call, int64_t index, const Int8Row& row, int64_t o, const int32_t* sums) {
  const int64_t count = call.out - o < int8_panel ? call.out - o : int8_panel, at = index * call.out + o;
  float line[int8_panel];
  float* const to = count == int8_panel ? call.y + at : line;
  for (int64_t v = 0; v < int8_panel; v += lanes) {
    const Ints exact = load<Ints>(sums + v) - load<Ints>(call.totals + o + v) * row.zero;
    Floats y = __builtin_convertvector(exact, Floats) * (load<Floats>(call.scales + o + v) * row.scale);
    if (count == int8_panel && call.bias) y += load<Floats>(call.bias + o + v);
    if (count == int8_panel && call.sum) y += load<Floats>(call.sum + at + v);
    store(to + v, y);
  }
  if (count == int8_panel) return;
  for (int64_t i = 0; i < count; ++i) {
    float y = line[i];
    if (call.bias) y += call.bias[o + i];
    if (call.sum) y += call.sum[at + i];
    call.y[at + i] = y;
  }
}

inline void multiply(const Int8Call& call, int64_t first, int64_t count, int64_t panel, int64_t panels, const uint8_t* values,
                     const Int8Row* rows, const int8_t* weights) {
  alignas(64) int32_t sums[int8_block * int8_panel];
  const int64_t quads = int8_quads(call.depth()), bytes = int8_row_bytes(call.depth()), groups = (count + together - 1) / together;
  for (int64_t p = 0; p < panels; ++p) {
    const int8_t* const of = weights + p * int8_panel_bytes(call.depth());
    for (int64_t q = 0; q < quads; q += part)
      for (int64_t g = 0; g < groups; ++g) {  // of about equal size
        const int64_t begin = count * g / groups, n = count * (g + 1) / groups - begin;
        add_some[n - 1](values + begin * bytes + q * 4, bytes, of + q * 4 * int8_panel, part < quads - q ? part : quads - q,
                        sums + begin * int8_panel, q == 0);
      }
    for (int64_t i = 0; i < count; ++i) write(call, first + i, rows[i], (panel + p) * int8_panel, sums + i * int8_panel);
  }
}

constexpr Int8Kernel all{ranges, quantise, multiply};
