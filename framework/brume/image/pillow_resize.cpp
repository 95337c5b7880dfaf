#include "brume/image/pillow_resize.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace brume {
namespace {

constexpr int weight_bits = 22;  ///< 32 bits less those of a value and two of headroom

/// Returns Keys' kernel with a = -1/2.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

double sinc(double x) {
  const double turn = x * std::numbers::pi;
  return x == 0 ? 1 : std::sin(turn) / turn;
}
double lanczos(double x) { return std::abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0; }

/// A kernel and how far it reaches.
struct Kernel {
  double (*value)(double);
  double reach;
};

/// The values of the source that make one of the result.
struct Window {
  int64_t first = 0;
  std::vector<int32_t> weights;
};

std::vector<Window> windows(int64_t in, int64_t out, const Kernel& kernel) {
  const double scale = double(in) / double(out), stretch = std::max(scale, 1.0), reach = kernel.reach * stretch;
  std::vector<Window> all;
  for (int64_t i = 0; i < out; ++i) {
    const double centre = (double(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(int64_t(centre - reach + 0.5), 0), end = std::min(int64_t(centre + reach + 0.5), in);
    std::vector<double> exact;
    double sum = 0;
    for (int64_t j = first; j < end; ++j) {
      exact.push_back(kernel.value((double(j) - centre + 0.5) / stretch));
      sum += exact.back();
    }
    Window w{first, {}};
    for (const double e : exact) {
      const double fixed = e / sum * double(1 << weight_bits);
      w.weights.push_back(int32_t(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
    all.push_back(std::move(w));
  }
  return all;
}

/// Returns the sum of values `stride` apart, rounded.
uint8_t weighted(const uint8_t* values, int64_t stride, const Window& w) {
  int64_t sum = int64_t{1} << (weight_bits - 1);
  for (size_t j = 0; j < w.weights.size(); ++j) sum += int64_t(values[int64_t(j) * stride]) * w.weights[j];
  return uint8_t(std::clamp<int64_t>(sum >> weight_bits, 0, 255));
}

Image resized(const Image& image, int64_t height, int64_t width, const Kernel& kernel) {
  const int64_t channels = image.channels;
  Image wide = width == image.width ? image : Image(image.height, width, channels);
  if (width != image.width) {
    const std::vector<Window> columns = windows(image.width, width, kernel);
    for (int64_t y = 0; y < image.height; ++y)
      for (int64_t x = 0; x < width; ++x)
        for (int64_t c = 0; c < channels; ++c) {
          const Window& w = columns[size_t(x)];
          wide.row(y)[x * channels + c] = weighted(image.row(y) + w.first * channels + c, channels, w);
        }
  }
  if (height == image.height) return wide;
  Image result(height, width, channels);
  const std::vector<Window> rows = windows(image.height, height, kernel);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t i = 0; i < width * channels; ++i)
      result.row(y)[i] = weighted(wide.row(rows[size_t(y)].first) + i, width * channels, rows[size_t(y)]);
  return result;
}

}  // namespace

Image resize_as_pillow(const Image& image, int64_t height, int64_t width) { return resized(image, height, width, {cubic, 2}); }
Image resize_as_pillow_lanczos(const Image& image, int64_t height, int64_t width) { return resized(image, height, width, {lanczos, 3}); }

}  // namespace brume
