#pragma once
// The parts of a 3x3 convolution by Winograd's F(4x4, 3x3) (Lavin & Gray 2016, arXiv:1509.09308) with stride 1 and one pixel of padding, in
// float32 over channels-last memory. No torch: the files that include this are compiled for their own instruction set.
//
//   Y = A^T [sum over c of (G g G^T) * (B^T d B)] A       for tiles d of 6x6 pixels, each giving 4x4
//
// with the points 0, +-1/sqrt(2), +-sqrt(2) and infinity, whose rounding errors are smaller than those of 0, +-1, +-2 (see
// docs/performance.md).
#include <cstdint>

namespace brume::nn::kernels {

inline constexpr int64_t winograd_points = 36;
inline constexpr int64_t winograd_block = 24;   ///< tiles that are multiplied together
inline constexpr int64_t winograd_panels = 4;   ///< panels of output channels that are multiplied together, at most
inline constexpr int64_t winograd_depth = 320;  ///< channels that are summed together, at most

/// Types of stored weights.
enum class StoredAs { float32, float16, bfloat16 };

/// One convolution. Tiles are numbered image by image, row by row.
struct WinogradCall {
  const float* x;     ///< [images, height, width, channels]
  float* y;           ///< [images, height, width, out]
  const float* bias;  ///< [out], or null
  const float* sum;   ///< what is added, shaped as y, or null
  int64_t images, height, width, channels, out;
  int64_t rows() const { return (height + 3) / 4; }
  int64_t columns() const { return (width + 3) / 4; }
  int64_t tiles() const { return images * rows() * columns(); }
};

/// Floats between two tiles, and between two points, of a block of transformed input; and of the block: odd numbers of cache lines, so that
/// neighbours do not evict each other.
inline int64_t winograd_tile(int64_t channels) { return channels % 256 == 0 ? channels + 16 : channels; }
inline int64_t winograd_plane(int64_t channels) { return (winograd_block * winograd_tile(channels) + 31) / 32 * 32 + 16; }
inline int64_t winograd_input(int64_t channels) { return winograd_points * winograd_plane(channels); }

struct WinogradKernel {
  int64_t lanes;  ///< of a vector; `channels` and `out` are multiples of it
  int64_t panel;  ///< output channels of a panel

  /// to = B^T d B of `count` <= winograd_block tiles from `first` on: [36, winograd_block, channels].
  void (*input)(const WinogradCall& call, int64_t first, int64_t count, float* to);

  /// to = G g G^T of one panel, [36, channels, panel], of stored weights [channels, 9, panel].
  void (*weights)(const void* stored, StoredAs type, int64_t channels, float* to);

  /// Writes the pixels of `count` tiles from `first` on in the output channels of `panels` panels from `panel` on. `input`, `weights`: of
  /// the tiles and of the panels; `scratch`: winograd_scratch floats.
  void (*output)(const WinogradCall& call, int64_t first, int64_t count, int64_t panel, int64_t panels, const float* input,
                 const float* weights, float* scratch);
};

/// Floats of scratch memory, for any kernel.
inline constexpr int64_t winograd_scratch = winograd_points * (winograd_block * winograd_panels * 32 + 16);

#if defined(__x86_64__)
const WinogradKernel& winograd_avx2();
const WinogradKernel& winograd_avx512();
#endif

}  // namespace brume::nn::kernels
