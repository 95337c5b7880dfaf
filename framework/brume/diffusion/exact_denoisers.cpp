#include "brume/diffusion/exact_denoisers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <cmath>

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

MixtureDenoiser gaussian_data() { return MixtureDenoiser({{1, {0}}}, 0.6); }
MixtureDenoiser mixture_data() { return MixtureDenoiser({{0.5, {-1}}, {0.3, {0.4}}, {0.2, {1.2}}}, 0.25); }

}  // namespace brume
