// The body of winograd_kernel.h, included once per instruction set within a namespace of its own. The sums of a tile have the same order
// wherever it lies in a block.

#include "brume/nn/ops/kernels/product_body.h"

constexpr int64_t plane = winograd_block * winograd_panels * panel + 16;  // of sums, between two points

// The squares of the points are 1/2 and 2, their product is 1.
constexpr float small = 0.70710678118654752f, large = 1.41421356237309505f;

/// y = B^T x for six vectors, `step` apart in y.
inline void input_line(const Vector (&x)[6], Vector* y, int64_t step) {
  const Vector even_small = x[4] - 2.0f * x[2], odd_small = small * x[3] - large * x[1];
  const Vector even_large = x[4] - 0.5f * x[2], odd_large = large * x[3] - small * x[1];
  y[0] = x[0] - 2.5f * x[2] + x[4];
  y[step] = even_small + odd_small;
  y[2 * step] = even_small - odd_small;
  y[3 * step] = even_large + odd_large;
  y[4 * step] = even_large - odd_large;
  y[5 * step] = x[1] - 2.5f * x[3] + x[5];
}

/// y = G x for three vectors.
inline void weight_line(const Vector& a, const Vector& b, const Vector& c, Vector* y, int64_t step) {
  constexpr float third = 1.0f / 3, sixth = 1.0f / 6, two_thirds = 2.0f / 3;
  const Vector even_small = -two_thirds * a - third * c, odd_small = (two_thirds * small) * b;
  const Vector even_large = sixth * a + third * c, odd_large = (sixth * large) * b;
  y[0] = a;
  y[step] = even_small - odd_small;
  y[2 * step] = even_small + odd_small;
  y[3 * step] = even_large + odd_large;
  y[4 * step] = even_large - odd_large;
  y[5 * step] = c;
}

/// y = A^T x for six vectors, `step` apart.
inline void output_line(const Vector* x, int64_t step, Vector (&y)[4]) {
  const Vector a = x[step] + x[2 * step], b = x[step] - x[2 * step], c = x[3 * step] + x[4 * step], d = x[3 * step] - x[4 * step];
  y[0] = x[0] + a + c;
  y[1] = small * b + large * d;
  y[2] = 0.5f * a + 2.0f * c;
  y[3] = (0.5f * small) * b + (2.0f * large) * d + x[5 * step];
}

/// The place of a tile: its image, and its first pixel.
struct Tile {
  int64_t image, y, x;
  template <class Call>
  Tile(const Call& call, int64_t index)
      : image(index / (call.rows() * call.columns())), y(index / call.columns() % call.rows() * 4), x(index % call.columns() * 4) {}
};

/// Writes B^T d B of a tile: channels floats for each point, `points` apart.
template <class Call>
void transform_input(const Tile& tile, const Call& call, float* to, int64_t points) {
  alignas(64) static const float zeros[lanes] = {};
  const float* from[36];
  int64_t step[36];
  for (int64_t y = 0; y < 6; ++y)
    for (int64_t x = 0; x < 6; ++x) {
      const int64_t row = tile.y + y - 1, column = tile.x + x - 1;
      const bool within = row >= 0 && row < call.height && column >= 0 && column < call.width;
      from[y * 6 + x] = within ? call.x + ((tile.image * call.height + row) * call.width + column) * call.channels : zeros;
      step[y * 6 + x] = within ? 1 : 0;
    }
  for (int64_t c = 0; c < call.channels; c += lanes) {
    Vector half[36], whole[36];
    for (int64_t x = 0; x < 6; ++x) {
      Vector column[6];
#pragma GCC unroll 6
      for (int64_t y = 0; y < 6; ++y) column[y] = load_vector(from[y * 6 + x] + c * step[y * 6 + x]);
      input_line(column, half + x, 6);
    }
    for (int64_t y = 0; y < 6; ++y) {
      Vector row[6];
#pragma GCC unroll 6
      for (int64_t x = 0; x < 6; ++x) row[x] = half[y * 6 + x];
      input_line(row, whole, 1);
#pragma GCC unroll 6
      for (int64_t x = 0; x < 6; ++x) store_vector(to + (y * 6 + x) * points + c, whole[x]);
    }
  }
}

inline void input(const WinogradCall& call, int64_t first, int64_t count, float* to) {
  const int64_t width = winograd_tile(call.channels), points = winograd_plane(call.channels);
  for (int64_t i = 0; i < count; ++i) transform_input(Tile(call, first + i), call, to + i * width, points);
}

inline Vector stored(const float* from) { return load_vector(from); }
inline Vector stored(const uint16_t* from, bool half) {
  typedef uint16_t Halves __attribute__((vector_size(lanes * sizeof(uint16_t))));
  typedef uint32_t Words __attribute__((vector_size(lanes * sizeof(uint32_t))));
  if (half) {
#if defined(__AVX512F__)
    return (Vector)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
    return (Vector)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#endif
  }
  Halves narrow;
  __builtin_memcpy(&narrow, from, sizeof narrow);
  return (Vector)(__builtin_convertvector(narrow, Words) << 16);
}

template <class Load>
void weights_as(int64_t channels, float* to, const Load& get) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t o = 0; o < panel; o += lanes) {
      Vector g[9], half[18], whole[6];
#pragma GCC unroll 9
      for (int64_t i = 0; i < 9; ++i) g[i] = get((c * 9 + i) * panel + o);
#pragma GCC unroll 3
      for (int64_t x = 0; x < 3; ++x) weight_line(g[x], g[3 + x], g[6 + x], half + x, 3);
#pragma GCC unroll 6
      for (int64_t y = 0; y < 6; ++y) {
        weight_line(half[y * 3], half[y * 3 + 1], half[y * 3 + 2], whole, 1);
#pragma GCC unroll 6
        for (int64_t x = 0; x < 6; ++x) store_vector(to + ((y * 6 + x) * channels + c) * panel + o, whole[x]);
      }
    }
}

inline void weights(const void* from, StoredAs type, int64_t channels, float* to) {
  if (type == StoredAs::float32) return weights_as(channels, to, [=](int64_t i) { return stored(static_cast<const float*>(from) + i); });
  const uint16_t* const narrow = static_cast<const uint16_t*>(from);
  if (type == StoredAs::float16) return weights_as(channels, to, [=](int64_t i) { return stored(narrow + i, true); });
  weights_as(channels, to, [=](int64_t i) { return stored(narrow + i, false); });
}

/// Sums over the channels, [36, winograd_block, panels * panel].
inline void products(int64_t channels, int64_t count, int64_t panels, const float* in, const float* weight, float* sums) {
  const int64_t width = winograd_tile(channels), points = winograd_plane(channels), row = panels * panel;
  const int64_t parts = (channels + winograd_depth - 1) / winograd_depth, depth = (channels / lanes + parts - 1) / parts * lanes;
  for (int64_t point = 0; point < winograd_points; ++point)
    for (int64_t c = 0; c < channels; c += depth)
      for (int64_t p = 0; p < panels; ++p)
        multiply_all<false>(count, in + point * points + c, width, weight + ((p * winograd_points + point) * channels + c) * panel,
                            c + depth < channels ? depth : channels - c, sums + point * plane + p * panel, row, c == 0);
}

inline void pixels(const WinogradCall& call, const Tile& tile, int64_t o, const float* sums) {
  Vector half[24];
  for (int64_t x = 0; x < 6; ++x) {
    Vector column[6], four[4];
#pragma GCC unroll 6
    for (int64_t y = 0; y < 6; ++y) column[y] = load_vector(sums + (y * 6 + x) * plane);
    output_line(column, 1, four);
#pragma GCC unroll 4
    for (int64_t y = 0; y < 4; ++y) half[y * 6 + x] = four[y];
  }
  const Vector bias = call.bias ? load_vector(call.bias + o) : Vector{};
  const int64_t high = call.height - tile.y < 4 ? call.height - tile.y : 4, wide = call.width - tile.x < 4 ? call.width - tile.x : 4;
  for (int64_t y = 0; y < high; ++y) {
    Vector four[4];
    output_line(half + y * 6, 1, four);
    const int64_t place = ((tile.image * call.height + tile.y + y) * call.width + tile.x) * call.out + o;
    for (int64_t x = 0; x < wide; ++x) {
      const int64_t at = place + x * call.out;
      store_vector(call.y + at, call.sum ? four[x] + bias + load_vector(call.sum + at) : four[x] + bias);
    }
  }
}

inline void output(const WinogradCall& call, int64_t first, int64_t count, int64_t panel_, int64_t panels, const float* in,
                   const float* weight, float* scratch) {
  products(call.channels, count, panels, in, weight, scratch);
  const int64_t begin = panel_ * panel, end = begin + panels * panel < call.out ? begin + panels * panel : call.out;
  for (int64_t i = 0; i < count; ++i) {
    const Tile tile(call, first + i);
    for (int64_t o = begin; o < end; o += lanes) pixels(call, tile, o, scratch + i * panels * panel + o - begin);
  }
}

constexpr WinogradKernel all{lanes, panel, input, weights, output};
