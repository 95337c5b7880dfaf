// The body of winograd_gradient_kernel.h, included after winograd_body.h, once per instruction set, within the same namespace.

namespace gradient {

/// y = A x for four vectors, `step` apart in y.
inline void spread_line(const Vector (&x)[4], Vector* y, int64_t step) {
  const Vector even_small = x[0] + 0.5f * x[2], odd_small = small * x[1] + (0.5f * small) * x[3];
  const Vector even_large = x[0] + 2.0f * x[2], odd_large = large * x[1] + (2.0f * large) * x[3];
  y[0] = x[0];
  y[step] = even_small + odd_small;
  y[2 * step] = even_small - odd_small;
  y[3 * step] = even_large + odd_large;
  y[4 * step] = even_large - odd_large;
  y[5 * step] = x[3];
}

/// y = G^T x for six vectors, `step` apart in x.
inline void weight_sums(const Vector* x, int64_t step, Vector (&y)[3]) {
  constexpr float third = 1.0f / 3, sixth = 1.0f / 6, two_thirds = 2.0f / 3;
  const Vector a = x[step] + x[2 * step], b = x[2 * step] - x[step], c = x[3 * step] + x[4 * step], d = x[3 * step] - x[4 * step];
  y[0] = x[0] - two_thirds * a + sixth * c;
  y[1] = (two_thirds * small) * b + (sixth * large) * d;
  y[2] = third * (c - a) + x[5 * step];
}

inline void input(const WinogradGradientCall& call, int64_t index, float* to, int64_t points) {
  transform_input(Tile(call, index), call, to, points);
}

inline void output(const WinogradGradientCall& call, int64_t index, int64_t begin, int64_t count, float* to, int64_t points) {
  const Tile tile(call, index);
  const int64_t high = call.height - tile.y < 4 ? call.height - tile.y : 4, wide = call.width - tile.x < 4 ? call.width - tile.x : 4;
  const float* const from = call.dy + ((tile.image * call.height + tile.y) * call.width + tile.x) * call.out;
  const int64_t filled = (count + panel - 1) / panel * panel;
  for (int64_t o = 0; o < filled; o += lanes) {
    float* const place = to + o / panel * winograd_sum * panel + o % panel;
    Vector half[24], whole[6];
    for (int64_t x = 0; x < 4; ++x) {
      Vector column[4];
      for (int64_t y = 0; y < 4; ++y)
        column[y] = o < count && y < high && x < wide ? load_vector(from + (y * call.width + x) * call.out + begin + o) : Vector{};
      spread_line(column, half + x, 4);
    }
    for (int64_t y = 0; y < 6; ++y) {
      Vector row[4];
#pragma GCC unroll 4
      for (int64_t x = 0; x < 4; ++x) row[x] = half[y * 4 + x];
      spread_line(row, whole, 1);
#pragma GCC unroll 6
      for (int64_t x = 0; x < 6; ++x) store_vector(place + (y * 6 + x) * points, whole[x]);
    }
  }
}

inline void multiply(const float* in, int64_t step, const float* out, int64_t tiles, int64_t channels, int64_t panels, float* sums,
                     bool begin) {
  for (int64_t p = 0; p < panels; ++p)
    multiply_all<true>(channels, in, step, out + p * winograd_sum * panel, tiles, sums + p * panel, panels * panel, begin);
}

inline void weights(const float* sums, int64_t points, int64_t channel, int64_t first, int64_t count, const WinogradPlaces& to) {
  for (int64_t o = 0; o < count; o += lanes) {
    Vector half[18], whole[9];
    for (int64_t x = 0; x < 6; ++x) {
      Vector column[6], three[3];
#pragma GCC unroll 6
      for (int64_t y = 0; y < 6; ++y) column[y] = load_vector(sums + (y * 6 + x) * points + o);
      weight_sums(column, 1, three);
#pragma GCC unroll 3
      for (int64_t y = 0; y < 3; ++y) half[y * 6 + x] = three[y];
    }
#pragma GCC unroll 3
    for (int64_t y = 0; y < 3; ++y) {
      Vector three[3];
      weight_sums(half + y * 6, 1, three);
#pragma GCC unroll 3
      for (int64_t x = 0; x < 3; ++x) whole[y * 3 + x] = three[x];
    }
    float* const start = to.start + (first + o) * to.by_out + channel * to.by_channel;
    for (int64_t tap = 0; tap < 9; ++tap)
      for (int64_t i = 0; i < lanes; ++i) start[i * to.by_out + to.taps[tap]] = whole[tap][i];
  }
}

/// Rows are summed before they are added, so that rounding grows with the square root of neither alone.
inline void bias(const WinogradGradientCall& call, int64_t begin, int64_t count, float* to) {
  for (int64_t o = 0; o < count; o += lanes) {
    Vector total{};
    for (int64_t y = 0; y < call.images * call.height; ++y) {
      Vector row{};
      const float* const from = call.dy + y * call.width * call.out + begin + o;
      for (int64_t x = 0; x < call.width; ++x) row += load_vector(from + x * call.out);
      total += row;
    }
    store_vector(to + o, total);
  }
}

constexpr WinogradGradientKernel all{lanes, panel, input, output, multiply, weights, bias};

}  // namespace gradient
