#include "brume/train/ema.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "brume/numerics/power_average.h"

namespace brume {

size_t averages_of(const EmaOptions& options) { return options.type == EmaOptions::Type::power ? options.std.size() : 1; }

Ema::Ema(const std::vector<Weight>& weights, const EmaOptions& options, size_t number) : o_(options), weights_(weights) {
  if (o_.type == EmaOptions::Type::power) exponent_ = power_exponent(o_.std.at(number));
  for (const Weight& w : weights) shadow_.push_back({w.name, w.tensor.detach().clone(), w.trainable});
}

double Ema::decay(int64_t step) const {
  const double t = double(step);
  if (o_.type == EmaOptions::Type::power) return std::pow(1 - 1 / (t + 1), exponent_ + 1);
  if (step == 0 && o_.warmup != EmaOptions::Warmup::none) return 0;  // the first average is the weights themselves
  switch (o_.warmup) {
    case EmaOptions::Warmup::none: return o_.decay;
    case EmaOptions::Warmup::ratio: return std::min(o_.decay, (1 + t) / (10 + t));
    case EmaOptions::Warmup::power: return std::clamp(1 - std::pow(1 + t / o_.inv_gamma, -o_.power), 0.0, o_.decay);
  }
  return o_.decay;
}

void Ema::update(int64_t step, const std::map<std::string, Tensor>& values) {
  const at::NoGradGuard no_grad;
  const double keep = decay(step);
  for (size_t i = 0; i < weights_.size(); ++i) {
    Tensor& s = shadow_[i].tensor;
    const auto value = values.find(weights_[i].name);
    const Tensor& w = value == values.end() ? weights_[i].tensor : value->second;
    if (!weights_[i].trainable) continue;
    if (!s.device().is_cpu() || s.strides() != w.strides() || !w.is_non_overlapping_and_dense()) {
      s.mul_(keep).add_(w, 1 - keep);
      continue;
    }
    float* ps = s.data_ptr<float>();
    const float *pw = w.data_ptr<float>(), d = float(keep);
    at::parallel_for(0, s.numel(), 65536, [&](int64_t b, int64_t e) {
      for (int64_t j = b; j < e; ++j) ps[j] = d * ps[j] + (1 - d) * pw[j];
    });
  }
}

void Ema::take_buffers() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < weights_.size(); ++i)
    if (!weights_[i].trainable) shadow_[i].tensor.copy_(weights_[i].tensor);
}

}  // namespace brume
