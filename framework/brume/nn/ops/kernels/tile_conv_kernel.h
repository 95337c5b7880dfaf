#pragma once
// Convolutions of bfloat16 with stride 1, of 1x1 or 3x3 pixels, and their gradients by weight, on the tiles of AMX. No torch: the file
// that includes this is compiled for its own instruction set.
//
// Images are numbered as one line of positions: of 3x3 the pixels of a row and a zero, the rows of an image and a row of zeros, so that
// each tap of a window is a constant number of positions away, and one zero serves two rows, or two images. Packed positions have
// `row_bytes()` each. With p a position, s the tap's distance:
//
//   y[p, o] = sum over taps and c of x[p + s, c] w[o, s, c],    dw[o, s, c] = sum over p of dy[p - s, o] x[p, c]
#include <cstdint>

namespace brume::nn::kernels {

inline constexpr int64_t tile_side = 16;              ///< rows of a tile, and float32 values of a row
inline constexpr int64_t tile_depth = 32;             ///< bfloat16 values of a row
inline constexpr int64_t tile_pair = 2 * tile_side;   ///< output channels that are computed together
inline constexpr int64_t tile_block = 3 * tile_side;  ///< positions that are computed together
inline constexpr int64_t tile_bytes = 1024;

struct TileShape {
  int64_t images, height, width, channels, out;
  int64_t kernel;  ///< 1 or 3

  int64_t margin() const { return kernel / 2; }
  int64_t line() const { return width + margin(); }
  int64_t lines() const { return images * (height + margin()); }
  int64_t positions() const { return lines() * line(); }
  /// Positions that a window reaches before and after its own.
  int64_t reach() const { return margin() * (line() + 1); }
  int64_t depths() const { return (channels + tile_depth - 1) / tile_depth; }
  int64_t pairs() const { return (out + tile_pair - 1) / tile_pair; }
  /// Bytes of a packed position: an odd number of cache lines, so that neighbours do not evict each other.
  int64_t row_bytes() const { return (depths() | 1) * 64; }
  /// Products of tiles for a pair of columns of tiles: by taps' rows, then channels, then the taps of a row.
  int64_t steps() const { return kernel * kernel * depths(); }
};

/// Some steps of the positions [first, first + count) in one pair of output channels.
struct TileProduct {
  const char* x;  ///< of position `first`, packed, or channels last if it is 1x1
  int64_t row_bytes;
  const char* weights;  ///< of the pair
  int64_t pair, first, count;
  int64_t begin, end;   ///< of the steps, in units of a row of taps
  float* sums;          ///< tile_block * tile_pair for each block; used unless these are all steps
  const float* bias;    ///< [out], or null
  const uint16_t* sum;  ///< what is added before rounding, shaped as y (it may be y), or null
  uint16_t* y;          ///< [images, height, width, out]
};

/// A part of the gradient by weight: up to three tiles of dy, which are taps or output channels, by two of x, over `steps` times 32
/// positions.
struct TileGradient {
  const char* dy;   ///< [16, positions]
  int64_t dy_step;  ///< bytes from one channel of dy to the next
  int64_t next;     ///< bytes from one tile of dy to the next
  const char* x;    ///< [positions / 2, 16, 2]
  int64_t x_step;   ///< bytes from 16 channels of x to the next
  int64_t steps;
  bool begin;   ///< sums start here
  float* sums;  ///< [tiles, 2, 16, 16]
};

struct TileKernel {
  /// Copies positions [first, first + count), zeros for those outside the images; `from`: [images, height, width, channels].
  void (*pack)(const TileShape& shape, const uint16_t* from, int64_t first, int64_t count, char* to);

  /// Packs a pair of a weight [out, taps, channels], or of one that is the weight of the gradient: [channels, taps, out], taps reversed.
  /// to: steps * 2 tiles.
  void (*weights)(const TileShape& shape, const uint16_t* from, bool gradient, int64_t pair, char* to);

  void (*multiply)(const TileShape& shape, const TileProduct& product);

  /// Packs positions [first, first + 32 `steps`) of 16 channels from `channel` on, of `channels`, in pairs: [16 steps, 16, 2].
  void (*pairs)(const TileShape& shape, const uint16_t* from, int64_t channels, int64_t channel, int64_t first, int64_t steps, char* to);
  /// The same transposed: 16 rows of 32 `steps` values, `row` bytes apart.
  void (*columns)(const TileShape& shape, const uint16_t* from, int64_t channels, int64_t channel, int64_t first, int64_t steps, char* to,
                  int64_t row);

  /// `tiles`: of dy, 1 to 3.
  void (*gradient)(const TileGradient& part, int64_t tiles);

  /// Adds the sums of 16 rows of `count` values, `row` bytes apart, to `to`.
  void (*sum)(const char* from, int64_t row, int64_t count, float* to);
};

#if defined(__x86_64__)
const TileKernel& tile_conv_amx();
#endif

}  // namespace brume::nn::kernels
