#include "brume/numerics/distillation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "brume/core/rows.h"
#include "brume/numerics/noising.h"
#include "brume/numerics/teacher.h"

namespace brume {

std::vector<double> log_normal_levels(const NoiseSchedule& schedule, int64_t images, double mean, double std, at::Generator& random) {
  const Tensor normal = draw_rows(images, [&](int64_t n) { return at::randn({n}, random, at::TensorOptions().dtype(at::kDouble)); });
  std::vector<double> sigmas;
  for (int64_t i = 0; i < images; ++i) sigmas.push_back(within_schedule(schedule, std::exp(mean + std * normal.data_ptr<double>()[i])));
  return sigmas;
}

Tensor progressive_target(const Estimates& teacher, const Tensor& x, const std::vector<double>& from, const std::vector<double>& middle,
                          const std::vector<double>& to) {
  const at::NoGradGuard no_grad;
  const Tensor half = ddim_step(x, teacher(x, from), from, middle);
  const Tensor end = ddim_step(half, teacher(half, middle), middle, to);
  std::vector<double> ratio;
  for (size_t i = 0; i < from.size(); ++i) ratio.push_back(to[i] / from[i]);
  return (end - x * each_image(ratio, x, [](double q) { return q; })) * each_image(ratio, x, [](double q) { return 1 / (1 - q); });
}

double EasyConsistency::below(double t, int64_t stage) const {
  const double share = std::pow(q, -double(stage + 1)), more = constant ? 1 : 1 + k / (1 + std::exp(b * t));
  return std::max(0.0, t * (1 - share * more));
}

Tensor EasyConsistency::losses(const Tensor& at_t, const Tensor& at_r, const std::vector<double>& t, const std::vector<double>& r) const {
  std::vector<double> weight;
  for (size_t i = 0; i < t.size(); ++i) weight.push_back(1 / (t[i] - r[i]));
  const Tensor squares = (at_t - at_r).square().flatten(1).sum(1);
  const Tensor distance = (squares + c * c).clamp_min(1e-24).sqrt() - c;
  return distance * each_image(weight, distance, [](double w) { return w; });
}

Tensor consistency_tangent(const TrigNetwork& network, const TrigFlow& b, const Tensor& online, const Tangent& options,
                           const TimeRange& range) {
  const at::NoGradGuard no_grad;
  const auto each = [&](const auto& f) { return each_image(b.t, b.x, f); };
  const auto along = [&](const std::vector<double>& offsets) {
    std::vector<double> t = b.t;
    for (size_t i = 0; i < t.size(); ++i) t[i] += offsets[i];
    return network(b.x + b.slope * each_image(offsets, b.x, [](double o) { return o; }), t);
  };
  const Tensor f = online.detach();
  const Tensor change = path_derivative(along, f, b.t, options.step, range) * each([](double t) { return std::cos(t) * std::sin(t); });
  Tensor g = (b.slope - f * b.sigma_data) * each([](double t) { return std::cos(t) * std::cos(t); }) -
             (b.x * each([](double t) { return std::cos(t) * std::sin(t); }) + change * b.sigma_data) * options.warmup;
  if (!options.normalized) return g;
  const Tensor norm = g.flatten(1).square().mean(1).sqrt() + options.c;
  std::vector<int64_t> shape(size_t(g.dim()), 1);
  shape[0] = g.size(0);
  return g / norm.view(shape);
}

Tensor distribution_gradient(const Tensor& x, const Tensor& real, const Tensor& fake) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> shape(size_t(x.dim()), 1);
  shape[0] = x.size(0);
  return (fake - real) / (x - real).abs().flatten(1).mean(1).clamp_min(1e-8).view(shape);
}

}  // namespace brume
