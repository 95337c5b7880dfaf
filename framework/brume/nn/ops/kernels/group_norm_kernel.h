#pragma once
// The per-channel passes of group norm over rows of channels-last memory, one table of functions per instruction set.
//
//   z = (x - centre) * gain + bias        y = z * sigmoid(z)  or  z
//
// Everything that is per group (statistics, gradients of the parameters) is a small sum over what these passes return, and lives in
// nn/group_norm.cpp. No torch here: these files are compiled with instruction-set flags of their own.

#include <cstdint>

namespace brume::nn::kernels {

/// Arrays indexed by channel (float or double, below) have room for the channel count rounded up to this, the rest being zero.
inline constexpr std::int64_t channel_padding = 32;

/// float32 sums run over this many rows before they go to double.
inline constexpr std::int64_t strip_rows = 32;

/// z = (x - centre) * gain + bias for each channel of one image.
struct ChannelAffine {
  const float* centre;
  const float* gain;
  const float* bias;
  bool silu;
};

/// x, y, dy, dx are [rows, channels], dense, of the table's element type; dz is the gradient with respect to z.
/// Each function reads and writes only what it is given: they are re-entrant and their results depend on nothing else.
struct GroupNormKernel {
  /// sum[c] += sum of (x - centre), square[c] += sum of (x - centre)^2.
  void (*moments)(const void* x, std::int64_t rows, std::int64_t channels, const float* centre, double* sum, double* square);

  /// y = z * sigmoid(z) or z.
  void (*apply)(const void* x, void* y, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine);

  /// sum[c] += sum of dz, moment[c] += sum of dz * (x - centre).
  void (*gradient_sums)(const void* x, const void* dy, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine, double* sum,
                        double* moment);

  /// dx = dz * gain + (x - centre) * slope + offset.
  void (*gradient)(const void* x, const void* dy, void* dx, std::int64_t rows, std::int64_t channels, const ChannelAffine& affine,
                   const float* slope, const float* offset);
};

struct GroupNormKernels {
  GroupNormKernel float32;
  GroupNormKernel bfloat16;
};

const GroupNormKernels& group_norm_generic();
#if defined(__x86_64__)
const GroupNormKernels& group_norm_avx2();    // needs AVX2 and FMA
const GroupNormKernels& group_norm_avx512();  // needs AVX512 F, BW, VL, DQ
#endif

}  // namespace brume::nn::kernels
