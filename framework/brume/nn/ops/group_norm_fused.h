#pragma once
// One fused call of group_norm_silu on the CPU, forward and backward. Included by group_norm.cpp only.
//
// y = silu((xhat * gamma + beta) * (1 + scale) + shift),  xhat = (x - mean) * rstd           (see group_norm.h)
//
// The gradient, with dz = dL/dz and w = gamma * (1 + scale), n the number of elements of a group:
//
//   dshift = sum dz            dscale = sum dz * (xhat * gamma + beta)                          sums over the positions of one image
//   dbeta  = sum dz * (1 + scale)        dgamma = sum dz * xhat * (1 + scale)                   sums over all images
//   dx     = rstd * (w * dz - S / n - xhat * Q / n),   S = sum w * dz,  Q = sum w * dz * xhat   sums over the group
//
// The passes over memory are in nn/kernels, per channel: there z = (x - centre) * gain + bias. Here are the sums over groups, images and
// blocks of rows. Order of every sum: 32 rows in float32 (the kernel), then double along a block, then blocks, then channels, then images.
// Blocks are cut by the shape of an image alone, so threads only decide who computes a partial sum, never what is in it.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#ifdef AT_PER_OPERATOR_HEADERS
#include <ATen/ops/empty.h>
#else
#include <ATen/Functions.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/kernels/group_norm_kernel.h"

namespace brume::nn::fused {

using kernels::GroupNormKernel;

constexpr int64_t block_elements = 65536;   // about 15 us of work
constexpr int64_t max_blocks = 64;          // of one image; bounds the memory for partial sums
constexpr int64_t serial_elements = 32768;  // below this a second thread costs more than it brings

inline const GroupNormKernel& kernel_for(at::ScalarType dtype) {
  const auto pick = [&](const kernels::GroupNormKernels& k) -> const GroupNormKernel& {
    return dtype == at::kBFloat16 ? k.bfloat16 : k.float32;
  };
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::avx512_bf16:
    case Isa::amx:
    case Isa::avx512: return pick(kernels::group_norm_avx512());
    case Isa::avx2: return pick(kernels::group_norm_avx2());
    case Isa::generic:
    case Isa::reference: break;
  }
#endif
  return pick(kernels::group_norm_generic());
}

struct Call {
  int64_t images, rows, channels, groups;
  int64_t padded;              // channels, with room for a whole vector
  int64_t block_rows, blocks;  // of one image
  int64_t row_bytes;
  double eps;
  bool silu;
  const GroupNormKernel& kernel;
  at::Tensor gamma, beta, scale, shift;  // float32, dense; the last two may be undefined
  at::Tensor added;                      // likewise; to x, before all else, without gradients

  Call(const at::Tensor& x, int64_t groups_, const at::Tensor& gamma_, const at::Tensor& beta_, double eps_, bool silu_,
       const at::Tensor& scale_, const at::Tensor& shift_, const at::Tensor& added_ = {})
      : images(x.size(0)),
        rows(x.numel() / (x.size(0) * x.size(1))),
        channels(x.size(1)),
        groups(groups_),
        eps(eps_),
        silu(silu_),
        kernel(kernel_for(x.scalar_type())),
        gamma(dense(gamma_)),
        beta(dense(beta_)),
        scale(dense(scale_)),
        shift(dense(shift_)),
        added(dense(added_)) {
    padded = round_up(channels, kernels::channel_padding);
    const int64_t wanted = std::max(block_elements / channels, (rows + max_blocks - 1) / max_blocks);
    block_rows = round_up(std::max<int64_t>(wanted, 1), kernels::strip_rows);
    blocks = (rows + block_rows - 1) / block_rows;
    row_bytes = channels * static_cast<int64_t>(x.element_size());
  }

  int64_t image_bytes() const { return rows * row_bytes; }
  double group_size() const { return static_cast<double>(rows) * static_cast<double>(channels / groups); }
  int64_t group_of(int64_t channel) const { return channel / (channels / groups); }
  double one_plus_scale(int64_t image, int64_t channel) const {
    return scale.defined() ? 1.0 + static_cast<double>(data(scale)[image * channels + channel]) : 1.0;
  }
  double shift_at(int64_t image, int64_t channel) const {
    return shift.defined() ? static_cast<double>(data(shift)[image * channels + channel]) : 0.0;
  }
  double added_at(int64_t image, int64_t channel) const {
    return added.defined() ? static_cast<double>(data(added)[image * channels + channel]) : 0.0;
  }
  static const float* data(const at::Tensor& parameter) { return static_cast<const float*>(parameter.data_ptr()); }

  /// Calls body(image) for all images: many at once if that keeps all threads busy, else one by one with its blocks spread over them.
  template <class Body>
  void for_images(const Body& body) const {
    const int64_t threads = at::get_num_threads();
    const bool shared_out = blocks == 1 || images % threads == 0 || images >= 4 * threads;
    const int64_t grain = shared_out ? std::max<int64_t>(1, serial_elements / (rows * channels)) : images;
    at::parallel_for(0, images, grain, [&](int64_t begin, int64_t end) {
      for (int64_t image = begin; image < end; ++image) body(image);
    });
  }

  /// Calls body(block, first_row, row_count) for the blocks of one image; serially if the images are shared out already.
  template <class Body>
  void for_blocks(const Body& body) const {
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * block_rows;
        body(block, first, std::min(block_rows, rows - first));
      }
    });
  }

 private:
  static int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
  static at::Tensor dense(const at::Tensor& parameter) {
    return parameter.defined() ? parameter.detach().to(at::kFloat).contiguous() : at::Tensor();
  }
};

/// Two sums per channel of one image, each block's apart until `total` adds them in order.
class ChannelSums {
 public:
  explicit ChannelSums(const Call& call) : call_(call), values_(static_cast<size_t>(2 * call.padded * call.blocks)) {}
  double* first(int64_t block = 0) { return values_.data() + 2 * call_.padded * block; }
  double* second(int64_t block = 0) { return first(block) + call_.padded; }
  void total() {
    for (int64_t block = 1; block < call_.blocks; ++block) {
      for (int64_t i = 0; i < 2 * call_.padded; ++i) first()[i] += first(block)[i];
    }
  }

 private:
  const Call& call_;
  std::vector<double> values_;
};

/// z = (x - centre) * gain + bias for each channel of an image. The centre is near the mean (less what is added to x), so nothing cancels
/// in `bias`.
class ImageAffine {
 public:
  ImageAffine(const Call& call, int64_t image, const double* mean, const double* rstd)
      : call_(call), values_(static_cast<size_t>(3 * call.padded)) {
    float *const centre = values_.data(), *const gain = centre + call.padded, *const bias = gain + call.padded;
    const float *const gamma = Call::data(call.gamma), *const beta = Call::data(call.beta);
    for (int64_t c = 0; c < call.channels; ++c) {
      const int64_t g = call.group_of(c);
      const double factor = call.one_plus_scale(image, c);
      const double exact_gain = rstd[g] * static_cast<double>(gamma[c]) * factor;
      const double added = call.added_at(image, c);
      centre[c] = static_cast<float>(mean[g] - added);
      gain[c] = static_cast<float>(exact_gain);
      bias[c] = static_cast<float>(static_cast<double>(beta[c]) * factor + call.shift_at(image, c) +
                                   (static_cast<double>(centre[c]) + added - mean[g]) * exact_gain);
    }
  }
  kernels::ChannelAffine get() const {
    const float* p = values_.data();
    return {p, p + call_.padded, p + 2 * call_.padded, call_.silu};
  }

 private:
  const Call& call_;
  std::vector<float> values_;
};

/// x's sizes and dtype, dense in the kernel's order: [B, H, W, C] or [B, N, C].
inline at::Tensor empty_channels_last(const at::Tensor& x) {
  if (x.dim() == 4) return at::empty(x.sizes(), x.options(), at::MemoryFormat::ChannelsLast);
  return at::empty({x.size(0), x.size(2), x.size(1)}, x.options()).transpose(1, 2);
}

// ---- forward

/// The first position's channels, as the kernel's sum of one row.
inline void first_row(const Call& call, const char* x, std::vector<float>& values) {
  std::vector<double> sums(static_cast<size_t>(2 * call.padded));
  call.kernel.moments(x, 1, call.channels, values.data(), sums.data(), sums.data() + call.padded);
  for (int64_t c = 0; c < call.channels; ++c) values[c] = static_cast<float>(sums[c]);
}

/// Mean and 1 / sqrt(variance + eps) of each group of one image, whose rows begin at x.
///
/// Sums are taken of x - centre, which keeps squares from cancelling: the centre is the first position, and if that turns out to be an
/// outlier (more than 4 standard deviations off) the sums are taken once more around the mean just found.
inline void statistics(const Call& call, int64_t image, const char* x, double* mean, double* rstd) {
  const int64_t group_channels = call.channels / call.groups;
  const double rows = static_cast<double>(call.rows), per_row = 1.0 / rows;
  std::vector<float> centre(static_cast<size_t>(call.padded));
  first_row(call, x, centre);
  for (int attempt = 0; attempt < 2; ++attempt) {
    ChannelSums sums(call);
    call.for_blocks([&](int64_t block, int64_t row, int64_t count) {
      call.kernel.moments(x + row * call.row_bytes, count, call.channels, centre.data(), sums.first(block), sums.second(block));
    });
    sums.total();
    const double *const sum = sums.first(), *const square = sums.second();
    bool far_off = false;
    for (int64_t g = 0; g < call.groups; ++g) {
      const int64_t begin = g * group_channels, end = begin + group_channels;
      double total = 0, squares = 0, distance = 0;
      for (int64_t c = begin; c < end; ++c) total += static_cast<double>(centre[c]) + call.added_at(image, c) + sum[c] * per_row;
      mean[g] = total / static_cast<double>(group_channels);
      for (int64_t c = begin; c < end; ++c) {
        const double off = sum[c] * per_row, apart = static_cast<double>(centre[c]) + call.added_at(image, c) + off - mean[g];
        squares += square[c] - rows * off * off + rows * apart * apart;
        distance += rows * off * off;
      }
      squares = std::max(squares, 0.0);
      rstd[g] = 1.0 / std::sqrt(squares / call.group_size() + call.eps);
      far_off = far_off || distance > 16 * squares;
    }
    if (!far_off) return;
    for (int64_t c = 0; c < call.channels; ++c) centre[c] += static_cast<float>(sum[c] * per_row);
  }
}

/// Returns y; fills stats [B, 2, groups] (float64) with mean and rstd.
inline at::Tensor forward(const Call& call, const at::Tensor& x, at::Tensor& stats) {
  const at::Tensor y = empty_channels_last(x);
  stats = at::empty({call.images, 2, call.groups}, at::TensorOptions().dtype(at::kDouble));
  const char* const from = static_cast<const char*>(x.data_ptr());
  char* const to = static_cast<char*>(y.data_ptr());
  double* const all_stats = static_cast<double*>(stats.data_ptr());
  call.for_images([&](int64_t image) {
    const int64_t start = image * call.image_bytes();
    double *const mean = all_stats + 2 * call.groups * image, *const rstd = mean + call.groups;
    statistics(call, image, from + start, mean, rstd);
    const ImageAffine affine(call, image, mean, rstd);
    call.for_blocks([&](int64_t, int64_t row, int64_t count) {
      const int64_t offset = start + row * call.row_bytes;
      call.kernel.apply(from + offset, to + offset, count, call.channels, affine.get());
    });
  });
  return y;
}

// ---- backward

struct Gradients {
  at::Tensor x, gamma, beta, scale, shift;  // parameters in float64; x undefined if it was not asked for
};

/// What one image adds to the parameters' gradients, one double per channel each.
struct ImageGradients {
  double *gamma, *beta, *scale, *shift;
};

/// From the sums over positions of dz and of dz * (x - centre) to the parameters' gradients, and to the two coefficients in
/// dx = dz * gain + (x - centre) * slope + offset.
inline void reduce_gradients(const Call& call, int64_t image, const double* mean, const double* rstd, const float* centre,
                             const double* sum, const double* moment, const ImageGradients& out, float* slope, float* offset) {
  const float *const gamma = Call::data(call.gamma), *const beta = Call::data(call.beta);
  const int64_t group_channels = call.channels / call.groups;
  for (int64_t g = 0; g < call.groups; ++g) {
    const int64_t begin = g * group_channels, end = begin + group_channels;
    double total = 0, total_xhat = 0;  // S and Q
    for (int64_t c = begin; c < end; ++c) {
      const double factor = call.one_plus_scale(image, c), gamma_c = static_cast<double>(gamma[c]);
      const double sum_xhat = rstd[g] * (moment[c] - (mean[g] - static_cast<double>(centre[c])) * sum[c]);
      out.gamma[c] = factor * sum_xhat;
      out.beta[c] = factor * sum[c];
      out.scale[c] = gamma_c * sum_xhat + static_cast<double>(beta[c]) * sum[c];
      out.shift[c] = sum[c];
      total += gamma_c * factor * sum[c];
      total_xhat += gamma_c * factor * sum_xhat;
    }
    const double exact_slope = -rstd[g] * rstd[g] * total_xhat / call.group_size();
    for (int64_t c = begin; c < end; ++c) {
      slope[c] = static_cast<float>(exact_slope);
      offset[c] = static_cast<float>(-rstd[g] * total / call.group_size() + exact_slope * (static_cast<double>(centre[c]) - mean[g]));
    }
  }
}

/// Maps [B, C] to [C], image after image.
inline at::Tensor sum_over_images(const Call& call, const double* values) {
  at::Tensor result = at::empty({call.channels}, at::TensorOptions().dtype(at::kDouble));
  double* const total = static_cast<double*>(result.data_ptr());
  at::parallel_for(0, call.channels, std::max<int64_t>(64, serial_elements / call.images), [&](int64_t begin, int64_t end) {
    std::fill(total + begin, total + end, 0.0);
    for (int64_t image = 0; image < call.images; ++image) {
      for (int64_t c = begin; c < end; ++c) total[c] += values[image * call.channels + c];
    }
  });
  return result;
}

inline Gradients backward(const Call& call, const at::Tensor& x, const at::Tensor& stats, const at::Tensor& dy, bool needs_dx) {
  Gradients result;
  if (needs_dx) result.x = empty_channels_last(x);
  const at::Tensor per_image = at::empty({4, call.images, call.channels}, at::TensorOptions().dtype(at::kDouble));
  const char *const x_data = static_cast<const char*>(x.data_ptr()), *const dy_data = static_cast<const char*>(dy.data_ptr());
  char* const dx_data = needs_dx ? static_cast<char*>(result.x.data_ptr()) : nullptr;
  const double* const all_stats = static_cast<const double*>(stats.data_ptr());
  double* const sums_data = static_cast<double*>(per_image.data_ptr());
  const int64_t plane = call.images * call.channels;
  call.for_images([&](int64_t image) {
    const int64_t start = image * call.image_bytes();
    const double *const mean = all_stats + 2 * call.groups * image, *const rstd = mean + call.groups;
    const ImageAffine affine(call, image, mean, rstd);
    const kernels::ChannelAffine z = affine.get();
    ChannelSums sums(call);
    call.for_blocks([&](int64_t block, int64_t row, int64_t count) {
      const int64_t offset = start + row * call.row_bytes;
      call.kernel.gradient_sums(x_data + offset, dy_data + offset, count, call.channels, z, sums.first(block), sums.second(block));
    });
    sums.total();
    double* const own = sums_data + image * call.channels;
    std::vector<float> line(static_cast<size_t>(2 * call.padded));  // slope and offset of dx
    float *const slope = line.data(), *const offset_of_dx = slope + call.padded;
    reduce_gradients(call, image, mean, rstd, z.centre, sums.first(), sums.second(), {own, own + plane, own + 2 * plane, own + 3 * plane},
                     slope, offset_of_dx);
    if (!needs_dx) return;
    call.for_blocks([&](int64_t, int64_t row, int64_t count) {
      const int64_t offset = start + row * call.row_bytes;
      call.kernel.gradient(x_data + offset, dy_data + offset, dx_data + offset, count, call.channels, z, slope, offset_of_dx);
    });
  });
  result.gamma = sum_over_images(call, sums_data);
  result.beta = sum_over_images(call, sums_data + plane);
  if (call.scale.defined()) {
    result.scale = per_image.select(0, 2);
    result.shift = per_image.select(0, 3);
  }
  return result;
}

}  // namespace brume::nn::fused
