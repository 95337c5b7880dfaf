#include "brume/conform/exact_denoisers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "brume/config/counted.h"

namespace brume {

Estimate MixtureDenoiser::denoise(const Tensor& x, double sigma, const Condition&) const {
  const double noise = sigma * sigma, total = s_ * s_ + noise;
  std::vector<Tensor> logits, estimates;
  for (const Component& c : components_) {
    const Tensor mean = at::tensor(c.mean, x.options());
    logits.push_back((x - mean).pow(2).sum(1) * (-0.5 / total) + std::log(c.weight));
    estimates.push_back((x * (s_ * s_) + mean * noise) / total);
  }
  Estimate d;
  d.x0 = (at::stack(estimates, 1) * at::stack(logits, 1).softmax(1).unsqueeze(2)).sum(1);
  return d;
}

double MixtureDenoiser::mean() const {
  double sum = 0;
  for (const Component& c : components_) sum += c.weight * c.mean[0];
  return sum;
}

double MixtureDenoiser::variance() const {
  double sum = s_ * s_;
  for (const Component& c : components_) sum += c.weight * std::pow(c.mean[0] - mean(), 2);
  return sum;
}

double MixtureDenoiser::quantile(double share, double sigma) const {
  const double s = std::hypot(s_, sigma);
  double low = 0, high = 0;
  for (const Component& c : components_) low = std::min(low, c.mean[0] - 40 * s), high = std::max(high, c.mean[0] + 40 * s);
  while (true) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return middle;
    double below = 0;
    for (const Component& c : components_) below += c.weight * std::erfc((c.mean[0] - middle) / (s * M_SQRT2)) / 2;
    (below < share ? low : high) = middle;
  }
}

MixtureDenoiser gaussian_data() { return MixtureDenoiser({{1, {0}}}, 0.6); }
MixtureDenoiser mixture_data() { return MixtureDenoiser({{0.5, {-1}}, {0.3, {0.4}}, {0.2, {1.2}}}, 0.25); }

Tensor ClassMixture::log_joint(const Tensor& x, double sigma) {
  std::vector<Tensor> all;
  for (size_t k = 0; k < size_t(classes); ++k)
    all.push_back((x - means[k]).pow(2).sum() * (-0.5 / (s * s + sigma * sigma)) + std::log(weights[k]));
  return at::stack(all);
}

Estimate ClassMixtureDenoiser::denoise(const Tensor& x, double sigma, const Condition& condition) const {
  using M = ClassMixture;
  if (condition.classes.defined() && condition.classes.size(0) != x.size(0))
    throw std::logic_error(
        fmt::format("the inner model got {} and {}", counted(x.size(0), "image"), counted(condition.classes.size(0), "class")));
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < x.size(0); ++i) {
    const int64_t y = condition.classes.defined() ? condition.classes[i].item<int64_t>() : M::classes;
    Tensor mean = at::full_like(x[i], y < M::classes ? M::means[y] : 0);
    if (y == M::classes) {
      const Tensor posterior = M::log_joint(x[i], sigma).softmax(0);
      for (int64_t k = 0; k < M::classes; ++k) mean = mean + posterior[k] * M::means[k];
    }
    rows.push_back((x[i] * (M::s * M::s) + mean * (sigma * sigma)) / (M::s * M::s + sigma * sigma));
  }
  Estimate d;
  d.x0 = at::stack(rows);
  d.variance = d.x0 * 0.5;
  return d;
}

Tensor ClassMixtureClassifier::log_probability(const Tensor& x, double sigma, const Tensor& classes) const {
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < x.size(0); ++i) {
    const Tensor joint = ClassMixture::log_joint(x[i], sigma);
    rows.push_back(joint[classes[i].item<int64_t>()] - joint.logsumexp(0));
  }
  return at::stack(rows);
}

}  // namespace brume
