#pragma once
// The parts of the gradient of a 3x3 convolution by its weight, by the transpose of Winograd's F(4x4, 3x3) (winograd_kernel.h has the
// matrices and the points), with a quarter of the multiplications:
//
//   dg = G^T [sum over tiles of (B^T d B) * (A e A^T)] G       for tiles d of 6x6 pixels of x, and e of 4x4 of the gradient by y
//
// in float32 over channels-last memory, stride 1 and one pixel of padding. No torch, as there.
#include <cstdint>

namespace brume::nn::kernels {

inline constexpr int64_t winograd_sum = 192;  ///< tiles that are summed together, at most

/// Tiles are numbered image by image, row by row.
struct WinogradGradientCall {
  const float* x;   ///< [images, height, width, channels]
  const float* dy;  ///< [images, height, width, out]
  int64_t images, height, width, channels, out;
  int64_t rows() const { return (height + 3) / 4; }
  int64_t columns() const { return (width + 3) / 4; }
  int64_t tiles() const { return images * rows() * columns(); }
};

/// Floats between two tiles of transformed x: an odd number of cache lines, so that tiles do not evict each other.
inline int64_t winograd_row(int64_t channels) { return ((channels + 15) / 16 | 1) * 16; }

/// Where a gradient by a weight lies: element (o, c, tap) at start + o * by_out + c * by_channel + taps[tap].
struct WinogradPlaces {
  float* start;
  int64_t by_out, by_channel, taps[9];
};

struct WinogradGradientKernel {
  int64_t lanes;  ///< of a vector; `channels` and `out` are multiples of it
  int64_t panel;  ///< output channels of a panel

  /// to = B^T d B of a tile: channels floats for each of the 36 points, `plane` apart.
  void (*input)(const WinogradGradientCall& call, int64_t tile, float* to, int64_t plane);

  /// to = A e A^T of a tile in `count` output channels from `begin` on: `panel` floats for each point and panel, `plane` and
  /// winograd_sum * panel apart. Those beyond the last channel are 0.
  void (*output)(const WinogradGradientCall& call, int64_t tile, int64_t begin, int64_t count, float* to, int64_t plane);

  /// sums [channels, row] (+)= in^T out of one point: in [tiles, step], out [panels, winograd_sum, panel] of `tiles` tiles, row = panels *
  /// panel. `begin`: sums are not yet anything.
  void (*multiply)(const float* in, int64_t step, const float* out, int64_t tiles, int64_t channels, int64_t panels, float* sums,
                   bool begin);

  /// Writes G^T S G of one input channel and `count` output channels from `first` on; sums: of them, for each point, `plane` apart.
  void (*weights)(const float* sums, int64_t plane, int64_t channel, int64_t first, int64_t count, const WinogradPlaces& to);

  /// to[count] = the sums of dy over all pixels, in `count` channels from `begin` on.
  void (*bias)(const WinogradGradientCall& call, int64_t begin, int64_t count, float* to);
};

#if defined(__x86_64__)
const WinogradGradientKernel& winograd_gradient_avx2();
const WinogradGradientKernel& winograd_gradient_avx512();
#endif

}  // namespace brume::nn::kernels
