#include "plot/mixture.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <numbers>

#include "brume/numerics/rk45.h"

namespace brume::tools {
namespace {
constexpr int count = 5;
constexpr double radius = 2.1;
}  // namespace

Mixture::Mixture() : means_(at::empty({count, 2}, at::kDouble)) {
  for (int k = 0; k < count; ++k) {
    const double angle = std::numbers::pi * (0.5 + 2.0 * k / count);
    centers_.push_back({radius * std::cos(angle), radius * std::sin(angle)});
    means_[k][0] = centers_.back().x;
    means_[k][1] = centers_.back().y;
  }
}

Estimate Mixture::denoise(const Tensor& x, double sigma, const Condition&) const {
  const double variance = spread * spread + sigma * sigma;
  const Tensor distance = (x.unsqueeze(1) - means_).square().sum(-1);  // [B, K]
  const Tensor share = at::softmax(distance * (-0.5 / variance), 1);
  Estimate d;
  d.x0 = (x * (spread * spread) + at::matmul(share, means_) * (sigma * sigma)) / variance;
  return d;
}

double Mixture::density(const Point& p) const {
  double sum = 0;
  for (const Point& m : centers_) sum += std::exp(-0.5 * (std::pow(p.x - m.x, 2) + std::pow(p.y - m.y, 2)) / (spread * spread));
  return sum;
}

Tensor exact_flow(const Denoiser& denoiser, const Tensor& x, double from, double to) {
  const Condition none;
  const auto slope = [&](double u, const Tensor& y) { return y - denoiser.denoise(y, std::exp(u), none).x0; };
  return rk45(slope, x, std::log(from), std::log(to), {.rtol = 1e-11, .atol = 1e-12}).x;
}

}  // namespace brume::tools
