#include "brume/nn/ops/int8_product.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "brume/nn/ops/blocking.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/kernels/int8_kernel.h"
#include "brume/nn/ops/memory_pool.h"

namespace brume::nn {
namespace {

using kernels::Int8Call;
using kernels::Int8Kernel;

constexpr int64_t panel = kernels::int8_panel, block = kernels::int8_block;

const Int8Kernel& kernel() {
#if defined(__x86_64__)
  if (isa() == Isa::amx) return kernels::int8_amx();
  if (isa() >= Isa::avx512) return __builtin_cpu_supports("avx512vnni") ? kernels::int8_avx512vnni() : kernels::int8_avx512();
  if (isa() == Isa::avx2) return kernels::int8_avx2();
#endif
  return kernels::int8_generic();
}

/// Bytes for `count` of them.
template <class T>
Tensor room(int64_t count) {
  return at::empty({count * int64_t(sizeof(T))}, at::TensorOptions().dtype(at::kByte));
}

void multiply(const Int8Call& call, const Int8Kernel& kernel, const int8_t* panels) {
  const Tensor range_memory = room<kernels::Int8Range>(call.pixels());
  auto* const ranges = data_or_null<kernels::Int8Range>(range_memory);
  at::parallel_for(0, call.pixels(), std::max<int64_t>(1, 16384 / call.channels), [&](int64_t begin, int64_t end) {
    kernel.ranges(call.x + begin * call.channels, end - begin, call.channels, ranges + begin);
  });
  constexpr int64_t at_most = int64_t(4) << 20;  // bytes of rows that are quantised at a time
  const int64_t bytes = kernels::int8_row_bytes(call.depth()), blocks = quotient_up(call.rows(), block);
  const int64_t chunk = std::min(blocks, std::max<int64_t>(2 * at::get_num_threads(), at_most / (block * bytes)));
  constexpr int64_t together = 4;  // panels that a thread multiplies at once
  const int64_t all = quotient_up(call.out, panel), groups = quotient_up(all, together), weight = kernels::int8_panel_bytes(call.depth());
  const Tensor value_memory = room<uint8_t>(chunk * block * bytes), row_memory = room<kernels::Int8Row>(chunk * block);
  auto* const values = data_or_null<uint8_t>(value_memory);
  auto* const rows = data_or_null<kernels::Int8Row>(row_memory);
  for (int64_t from = 0; from < blocks; from += chunk) {
    const int64_t here = std::min(chunk, blocks - from);
    const auto count = [&](int64_t b) { return std::min(block, call.rows() - (from + b) * block); };
    for_grid(1, here, [&](int64_t, int64_t b) {
      kernel.quantise(call, ranges, (from + b) * block, count(b), values + b * block * bytes, rows + b * block);
    });
    for_grid(groups, here, [&](int64_t group, int64_t b) {
      const int64_t first = group * together;
      kernel.multiply(call, (from + b) * block, count(b), first, std::min(together, all - first), values + b * block * bytes,
                      rows + b * block, panels + first * weight);
    });
  }
}

}  // namespace

bool int8_fits(const Tensor& weight) {
  const int64_t dimensions = weight.dim();
  if (dimensions < 2 || dimensions > 4 || weight.numel() == 0) return false;
  const int64_t high = dimensions > 2 ? weight.size(2) : 1, wide = dimensions > 3 ? weight.size(3) : 1;
  return high == wide && weight.numel() / weight.size(0) <= kernels::int8_deepest;
}

Int8Weight int8_weight(const Int8Values& of) {
  const Tensor& v = of.values;
  const int64_t out = v.size(0), channels = v.size(1), side = v.dim() > 2 ? v.size(2) : 1, taps = side * side, depth = taps * channels;
  const int64_t panels = quotient_up(out, panel), bytes = kernels::int8_panel_bytes(depth);
  Int8Weight result{lasting_memory(size_t(panels * bytes)),
                    at::zeros({panels * panel}, at::kFloat),
                    at::zeros({panels * panel}, at::kInt),
                    channels,
                    out,
                    side};
  const Tensor dense = v.reshape({out, channels, taps}).contiguous();
  result.scales.narrow(0, 0, out).copy_(of.scales);
  const auto* const from = data_or_null<const int8_t>(dense);
  auto* const to = data_or_null<int8_t>(result.panels);
  auto* const totals = data_or_null<int32_t>(result.totals);
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      std::fill(to + p * bytes, to + (p + 1) * bytes, int8_t(0));
      for (int64_t lane = 0; lane < std::min(panel, out - p * panel); ++lane)
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t tap = 0; tap < taps; ++tap) {
            const int64_t o = p * panel + lane, k = tap * channels + c;
            const int8_t value = from[(o * channels + c) * taps + tap];
            to[p * bytes + (k / 4 * panel + lane) * 4 + k % 4] = value;
            totals[o] += value;
          }
    }
  });
  return result;
}

Tensor int8_conv2d(const Tensor& x, const Int8Weight& weight, const Tensor& bias, int64_t stride, int64_t padding, const Tensor& sum) {
  const auto size = [&](int64_t axis) { return (x.size(axis) + 2 * padding - weight.kernel) / stride + 1; };
  const Tensor y = at::empty({x.size(0), weight.out, size(2), size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
  const Tensor line = bias.defined() ? bias.contiguous() : bias;
  const Tensor added = sum.defined() ? sum.contiguous(at::MemoryFormat::ChannelsLast) : sum;
  const Int8Call call{data_or_null<const float>(x),
                      data_or_null<float>(y),
                      data_or_null<const float>(line),
                      data_or_null<const float>(added),
                      data_or_null<const float>(weight.scales),
                      data_or_null<const int32_t>(weight.totals),
                      x.size(0),
                      x.size(2),
                      x.size(3),
                      weight.channels,
                      weight.kernel,
                      stride,
                      padding,
                      weight.out,
                      y.size(2),
                      y.size(3)};
  if (call.rows() > 0) multiply(call, kernel(), data_or_null<const int8_t>(weight.panels));
  return y;
}

}  // namespace brume::nn
