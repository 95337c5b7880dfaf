#include <algorithm>
#include <stdexcept>

#include "brume/nn/ops/blocking.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/kernels/winograd_gradient_kernel.h"
#include "brume/nn/ops/winograd.h"

namespace brume::nn {
namespace {

using kernels::WinogradGradientCall;
using kernels::WinogradGradientKernel;
using kernels::WinogradPlaces;

constexpr int64_t points = kernels::winograd_points;

const WinogradGradientKernel& kernel() {
#if defined(__x86_64__)
  return isa() >= Isa::avx512 ? kernels::winograd_gradient_avx512() : kernels::winograd_gradient_avx2();
#else
  throw std::logic_error("no instruction set of this processor has the gradient of a convolution by Winograd");
#endif
}

/// How a gradient is cut: the output channels of a set are computed together, as many as there is memory for.
struct Cut {
  int64_t row, panels, set;         ///< floats of a tile of transformed x; panels of all output channels, and of a set
  int64_t input, output, sums = 0;  ///< floats between two points
  Cut(const WinogradGradientCall& call, const WinogradGradientKernel& kernel) : row(kernels::winograd_row(call.channels)) {
    constexpr int64_t most = int64_t(8) << 20;  // floats of all sums: 32 MiB
    panels = quotient_up(call.out, kernel.panel);
    set = std::clamp<int64_t>(most / (points * call.channels * kernel.panel), 1, panels);
    input = kernels::winograd_sum * row + 16;
    output = kernels::winograd_sum * set * kernel.panel + 16;
    sums = call.channels * set * kernel.panel;
  }
};

/// The sums over all tiles, in output channels [first, first + count).
void sum_tiles(const WinogradGradientCall& call, const WinogradGradientKernel& kernel, const Cut& cut, int64_t first, int64_t count,
               float* in, float* out, float* sums) {
  const int64_t panels = quotient_up(count, kernel.panel), parts = quotient_up(call.channels, 96);
  for (int64_t begin = 0; begin < call.tiles(); begin += kernels::winograd_sum) {
    const int64_t tiles = std::min(kernels::winograd_sum, call.tiles() - begin);
    for_grid(1, tiles, [&](int64_t, int64_t t) {
      kernel.input(call, begin + t, in + t * cut.row, cut.input);
      kernel.output(call, begin + t, first, count, out + t * kernel.panel, cut.output);
    });
    for_grid(points, parts, [&](int64_t point, int64_t part) {
      const int64_t c = call.channels * part / parts, channels = call.channels * (part + 1) / parts - c;
      kernel.multiply(in + point * cut.input + c, cut.row, out + point * cut.output, tiles, channels, panels,
                      sums + point * cut.sums + c * panels * kernel.panel, begin == 0);
    });
  }
}

}  // namespace

bool winograd_gradient_fits(const Tensor& x, const Tensor& weight, int64_t stride, int64_t padding) {
  constexpr int64_t few = 64, large = int64_t(512) * 512;  // tiles of an image, which pay for the transforms of a weight this large
  if (!winograd_fits(x.scalar_type(), x.size(2), x.size(3), weight, stride, padding)) return false;
  return weight.size(0) * weight.size(1) <= large || quotient_up(x.size(2), 4) * quotient_up(x.size(3), 4) >= few;
}

void winograd_gradient(const Tensor& x, const Tensor& dy, const Tensor& dw, const Tensor& db) {
  const WinogradGradientCall call{data_or_null<float>(x), data_or_null<float>(dy), x.size(0), x.size(2), x.size(3), x.size(1), dy.size(1)};
  const WinogradGradientKernel& own = kernel();
  const Cut cut(call, own);
  const AlignedFloats in(points * cut.input), out(points * cut.output), sums(points * cut.sums);
  WinogradPlaces places{data_or_null<float>(dw), dw.stride(0), dw.stride(1), {}};
  for (int64_t tap = 0; tap < 9; ++tap) places.taps[tap] = tap / 3 * dw.stride(2) + tap % 3 * dw.stride(3);
  for (int64_t panel = 0; panel < cut.panels; panel += cut.set) {
    const int64_t first = panel * own.panel, count = std::min(cut.set * own.panel, call.out - first);
    const int64_t row = quotient_up(count, own.panel) * own.panel;
    sum_tiles(call, own, cut, first, count, in.begin, out.begin, sums.begin);
    for_grid(1, call.channels, [&](int64_t, int64_t c) { own.weights(sums.begin + c * row, cut.sums, c, first, count, places); });
  }
  if (!db.defined()) return;
  const int64_t groups = quotient_up(call.out, own.panel);
  for_grid(1, groups, [&](int64_t, int64_t g) {
    own.bias(call, g * own.panel, std::min(own.panel, call.out - g * own.panel), data_or_null<float>(db) + g * own.panel);
  });
}

}  // namespace brume::nn
