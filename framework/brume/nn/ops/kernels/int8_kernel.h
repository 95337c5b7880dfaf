#pragma once
// Products of eight-bit integers: a convolution (a linear layer is one of 1x1 pixels) whose weights are symmetric per output channel and
// whose input is quantised row by row, a row being what one output pixel reads (Jacob et al. 2018, arXiv:1712.05877, sec. 2):
//
//   x = s (q - z),  0 <= q <= 255        s, z of the row's own least and greatest value
//   w = t v,      -63 <= v <= 63         t of the output channel
//   y = s t (sum q v - z sum v)          the sums in int32, exactly
//
// Seven bits per weight, because vpmaddubsw adds two products in int16: 2 * 255 * 63 fits, 2 * 255 * 127 does not. So every instruction
// set computes the same integers, and, as they are turned into floats by the same operations, the same bits. No torch: the files that
// include this are compiled for their own instruction set.
#include <cstddef>
#include <cstdint>

namespace brume::nn::kernels {

inline constexpr int64_t int8_panel = 16;                  ///< output channels that lie together
inline constexpr int64_t int8_block = 48;                  ///< rows that are multiplied together
inline constexpr int64_t int8_deepest = int64_t(1) << 17;  ///< channels times taps, at most: 255 * 63 * 2^17 < 2^31

/// One product. Rows are the output's pixels, image by image. Memory is channels last.
struct Int8Call {
  const float* x;         ///< [images, height, width, channels]
  float* y;               ///< [images, out_height, out_width, out]
  const float* bias;      ///< [out], or null
  const float* sum;       ///< what is added, shaped as y (it may be y), or null
  const float* scales;    ///< t, [out] and zeros to whole panels
  const int32_t* totals;  ///< sum v, as long
  int64_t images, height, width, channels;
  int64_t kernel, stride, padding;
  int64_t out, out_height, out_width;
  int64_t pixels() const { return images * height * width; }
  int64_t rows() const { return images * out_height * out_width; }
  int64_t depth() const { return kernel * kernel * channels; }
};

/// s and z of a row; s is NaN if the row holds what is no finite number.
struct Int8Row {
  float scale;
  int32_t zero;
};

/// The least and the greatest value of a pixel, zero among them; infinite if one of its values is not finite.
struct Int8Range {
  float low, high;
};

/// Bytes between two quantised rows: an odd number of cache lines, so that neighbours do not evict each other.
inline int64_t int8_row_bytes(int64_t depth) { return (depth + 127) / 128 * 128 + 64; }

/// Groups of four values that are multiplied at once.
inline int64_t int8_quads(int64_t depth) { return (depth + 3) / 4; }

/// Bytes of a panel of weights: [quads, panel, 4], by taps, then channels, with zeros up to a multiple of 16 quads.
inline int64_t int8_panel_bytes(int64_t depth) { return (int8_quads(depth) + 15) / 16 * 64 * int8_panel; }

struct Int8Kernel {
  /// Of `count` pixels of `channels` values.
  void (*ranges)(const float* x, int64_t count, int64_t channels, Int8Range* to);

  /// Quantises `count` rows from `first` on; `ranges`: of all pixels. values: int8_row_bytes for each.
  void (*quantise)(const Int8Call& call, const Int8Range* ranges, int64_t first, int64_t count, uint8_t* values, Int8Row* rows);

  /// Writes y for `count` <= int8_block rows from `first` on, in the output channels of `panels` panels from `panel` on. `values`, `rows`:
  /// of the rows; `weights`: of the panels.
  void (*multiply)(const Int8Call& call, int64_t first, int64_t count, int64_t panel, int64_t panels, const uint8_t* values,
                   const Int8Row* rows, const int8_t* weights);
};

const Int8Kernel& int8_generic();
#if defined(__x86_64__)
const Int8Kernel& int8_avx2();
const Int8Kernel& int8_avx512();
const Int8Kernel& int8_avx512vnni();
const Int8Kernel& int8_amx();
#endif

}  // namespace brume::nn::kernels
