#include "brume/numerics/image_quality.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log10.h>

#include <algorithm>
#include <cmath>

namespace brume {
namespace {

/// Returns weighted means over the window around each position, of [N, 1, H, W].
Tensor blurred(const Tensor& x, const Tensor& window) {
  return at::conv2d(at::conv2d(x, window.view({1, 1, -1, 1})), window.view({1, 1, 1, -1}));
}

Tensor gaussian(int64_t side) {
  const Tensor at = at::arange(side, at::kDouble) - double(side - 1) / 2;
  const Tensor w = (at * at / (-2 * 1.5 * 1.5)).exp();
  return w / w.sum();
}

/// Returns 0 to 255, whole numbers, in the dtype of the images.
Tensor levels(const Tensor& images) { return ((images.clamp(-1, 1) + 1) * 127.5).round(); }

}  // namespace

Tensor as_8_bits(const Tensor& images) { return levels(images) / 127.5 - 1; }
Tensor byte_values(const Tensor& images) { return levels(images).to(at::kByte); }

Tensor psnr(const Tensor& a, const Tensor& b) {
  const Tensor error = (a.cpu().to(at::kDouble) - b.cpu().to(at::kDouble)).pow(2).flatten(1).mean(1);
  return ((4 / error).log10() * 10).clamp_max(100);
}

Tensor ssim(const Tensor& a, const Tensor& b) {
  const int64_t n = a.size(0), least = std::min(a.size(2), a.size(3));
  const Tensor window = gaussian(std::min<int64_t>(11, least - (least + 1) % 2));
  const auto planes = [](const Tensor& x) { return ((x.cpu().to(at::kDouble) + 1) / 2).contiguous().view({-1, 1, x.size(2), x.size(3)}); };
  const Tensor x = planes(a), y = planes(b);
  const Tensor mx = blurred(x, window), my = blurred(y, window);
  const Tensor vx = blurred(x * x, window) - mx * mx, vy = blurred(y * y, window) - my * my, xy = blurred(x * y, window) - mx * my;
  const double c1 = 0.01 * 0.01, c2 = 0.03 * 0.03;
  const Tensor map = (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2));
  return map.view({n, -1}).mean(1);
}

}  // namespace brume
