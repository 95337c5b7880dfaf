#include "brume/nn/ops/winograd.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "brume/nn/ops/blocking.h"
#include "brume/nn/ops/isa.h"

namespace brume::nn {
namespace {

using kernels::StoredAs;
using kernels::WinogradCall;
using kernels::WinogradKernel;

constexpr int64_t points = kernels::winograd_points, block = kernels::winograd_block;

/// Returns the kernel of the instruction set in use; null if it has none.
const WinogradKernel* kernel() {
#if defined(__x86_64__)
  if (isa() >= Isa::avx512) return &kernels::winograd_avx512();
  if (isa() == Isa::avx2) return &kernels::winograd_avx2();
#endif
  return nullptr;
}

/// Returns true on AVX2, on which it was measured to win, unless the variable BRUME_WINOGRAD says otherwise.
bool wanted() {
  static const char* const text = std::getenv("BRUME_WINOGRAD");
  return text ? std::string_view(text) == "1" : isa() == Isa::avx2;
}

/// The place of a number of a weight: element (o, c, tap) lies at start + o * by_out + c * by_channel + taps[tap].
struct Places {
  int64_t out, channels, by_out, by_channel, taps[9];
};

template <class T>
void store_panel(const T* from, const Places& p, int64_t first, int64_t panel, T* to) {
  std::fill(to, to + p.channels * 9 * panel, T(0));
  for (int64_t o = 0; o < std::min(panel, p.out - first); ++o)
    for (int64_t c = 0; c < p.channels; ++c) {
      const T* const g = from + (first + o) * p.by_out + c * p.by_channel;
      for (int64_t tap = 0; tap < 9; ++tap) to[(c * 9 + tap) * panel + o] = g[p.taps[tap]];
    }
}

WinogradWeight store(const Tensor& weight, const Places& places, Tensor (*memory)(size_t)) {
  const int64_t panel = kernel()->panel, panels = quotient_up(places.out, panel), each = places.channels * 9 * panel;
  WinogradWeight result{{}, StoredAs::float32, places.channels, places.out};
  if (weight.scalar_type() == at::kHalf) result.type = StoredAs::float16;
  if (weight.scalar_type() == at::kBFloat16) result.type = StoredAs::bfloat16;
  result.stored = memory(size_t(panels * each * weight.element_size()));
  const auto all = [&]<class T>(T* to) {
    for_grid(1, panels,
             [&](int64_t, int64_t p) { store_panel(static_cast<const T*>(weight.data_ptr()), places, p * panel, panel, to + p * each); });
  };
  void* const to = result.stored.data_ptr();
  result.type == StoredAs::float32 ? all(static_cast<float*>(to)) : all(static_cast<uint16_t*>(to));
  return result;
}

/// Returns the same numbers in a type that the kernel reads.
Tensor readable(const Tensor& weight) {
  const bool as_it_is = weight.scalar_type() == at::kHalf || weight.scalar_type() == at::kBFloat16;
  return as_it_is ? weight : weight.to(at::kFloat);
}

/// How a call is cut: chunks of tiles are transformed together, and so are sets of panels, as much as stays in a cache.
struct Cut {
  int64_t blocks, chunk;         ///< blocks of tiles; of a chunk
  int64_t panels, set, at_once;  ///< panels; of a set; that are multiplied together
  int64_t input, weight;         ///< floats of a block, and of a panel
  Cut(const WinogradCall& call, const WinogradKernel& kernel) {
    constexpr int64_t inputs = int64_t(4) << 20, weights = int64_t(2) << 20;  // floats: 16 and 8 MiB
    blocks = quotient_up(call.tiles(), block);
    input = kernels::winograd_input(call.channels);
    chunk = std::clamp<int64_t>(inputs / input, 1, blocks);
    panels = quotient_up(call.out, kernel.panel);
    weight = points * call.channels * kernel.panel;
    set = std::clamp<int64_t>(weights / weight, 1, panels);
    at_once = std::min(set, kernels::winograd_panels);
    if (set > at_once) set = set / at_once * at_once;
  }
};

void convolve(const WinogradCall& call, const WinogradKernel& kernel, const WinogradWeight& weight) {
  const Cut cut(call, kernel);
  const AlignedFloats input_memory(cut.chunk * cut.input), weight_memory(cut.set * cut.weight);
  float *const inputs = input_memory.begin, *const weights = weight_memory.begin;
  const int64_t tiles = call.tiles(), stored = call.channels * 9 * kernel.panel * (weight.type == StoredAs::float32 ? 4 : 2);
  const auto count = [&](int64_t b) { return std::min(block, tiles - b * block); };
  int64_t ready = -1;  // the set whose weights are transformed
  for (int64_t chunk = 0; chunk < cut.blocks; chunk += cut.chunk) {
    const int64_t blocks = std::min(cut.chunk, cut.blocks - chunk);
    for_grid(1, blocks, [&](int64_t, int64_t b) { kernel.input(call, (chunk + b) * block, count(chunk + b), inputs + b * cut.input); });
    for (int64_t set = 0; set < cut.panels; set += cut.set) {
      const int64_t panels = std::min(cut.set, cut.panels - set);
      if (set != ready)
        for_grid(1, panels, [&](int64_t, int64_t p) {
          kernel.weights(static_cast<const char*>(weight.stored.data_ptr()) + (set + p) * stored, weight.type, call.channels,
                         weights + p * cut.weight);
        });
      ready = set;
      for_grid(quotient_up(panels, cut.at_once), blocks, [&](int64_t group, int64_t b) {
        thread_local std::vector<float> scratch(size_t(kernels::winograd_scratch));
        const int64_t first = group * cut.at_once;
        kernel.output(call, (chunk + b) * block, count(chunk + b), set + first, std::min(cut.at_once, panels - first),
                      inputs + b * cut.input, weights + first * cut.weight, scratch.data());
      });
    }
  }
}

}  // namespace

bool winograd_fits(at::ScalarType type, int64_t height, int64_t width, const Tensor& weight, int64_t stride, int64_t padding) {
  if (type != at::kFloat || stride != 1 || padding != 1 || weight.dim() != 4 || weight.size(2) != 3 || weight.size(3) != 3) return false;
  const WinogradKernel* const own = kernel();
  if (!own || !wanted() || weight.size(0) % own->lanes != 0 || weight.size(1) % own->lanes != 0) return false;
  constexpr int64_t few = 16, small = 32;  // channels, pixels
  const int64_t covered = quotient_up(height, 4) * quotient_up(width, 4) * 16;
  return std::min(weight.size(0), weight.size(1)) >= few && height * width >= small && 2 * height * width >= covered;
}

WinogradWeight winograd_weight(const Tensor& weight, Tensor (*memory)(size_t)) {
  const Tensor w = readable(weight);
  Places places{w.size(0), w.size(1), w.stride(0), w.stride(1), {}};
  for (int64_t tap = 0; tap < 9; ++tap) places.taps[tap] = tap / 3 * w.stride(2) + tap % 3 * w.stride(3);
  return store(w, places, memory);
}

WinogradWeight winograd_gradient_weight(const Tensor& weight, Tensor (*memory)(size_t)) {
  const Tensor w = readable(weight);
  Places places{w.size(1), w.size(0), w.stride(1), w.stride(0), {}};
  for (int64_t tap = 0; tap < 9; ++tap) places.taps[tap] = (8 - tap) / 3 * w.stride(2) + (8 - tap) % 3 * w.stride(3);
  return store(w, places, memory);
}

void winograd_conv2d(const Tensor& x, const WinogradWeight& weight, const Tensor& bias, const Tensor& sum, const Tensor& y) {
  const WinogradCall call{data_or_null<float>(x),
                          data_or_null<float>(y),
                          data_or_null<float>(bias),
                          data_or_null<float>(sum),
                          x.size(0),
                          x.size(2),
                          x.size(3),
                          weight.channels,
                          weight.out};
  if (call.images > 0) convolve(call, *kernel(), weight);
}

}  // namespace brume::nn
