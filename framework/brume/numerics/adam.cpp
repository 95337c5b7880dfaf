#include "brume/numerics/adam.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace brume {
namespace {

constexpr int64_t grain = 16384;  // values a task; sums are taken per task, so that they do not depend on the threads

struct Factors {
  float beta1, beta2, eps, step, root, decay, shrink, scale;
};

void adam_kernel(float* w, const float* g, float* m, float* v, int64_t n, const Factors& f) {
  for (int64_t i = 0; i < n; ++i) {
    const float gradient = g[i] * f.scale + f.decay * w[i];
    m[i] = f.beta1 * m[i] + (1 - f.beta1) * gradient;
    v[i] = f.beta2 * v[i] + (1 - f.beta2) * gradient * gradient;
    w[i] = f.shrink * w[i] - f.step * m[i] / (std::sqrt(v[i]) * f.root + f.eps);
  }
}

/// The gradient, laid out as the weight is: the kernel walks over both as flat arrays.
Tensor laid_out_as(const Tensor& weight, const Tensor& gradient) {
  return gradient.strides() == weight.strides() ? gradient : at::empty_like(weight).copy_(gradient);
}

double square_sum(const float* g, int64_t n) {
  std::vector<double> parts(size_t((n + grain - 1) / grain));
  at::parallel_for(0, int64_t(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      double lanes[8] = {};
      const int64_t first = p * grain, last = std::min(n, first + grain);
      for (int64_t i = first; i < last; ++i) lanes[i & 7] += double(g[i]) * double(g[i]);
      for (const double l : lanes) parts[size_t(p)] += l;
    }
  });
  double sum = 0;
  for (const double p : parts) sum += p;
  return sum;
}

}  // namespace

Adam::Adam(std::vector<Weight> weights, const AdamOptions& options) : weights_(std::move(weights)), o_(options) {
  for (const Weight& w : weights_) {
    first_.push_back(at::zeros_like(w.tensor));  // laid out in memory as the weight is
    second_.push_back(at::zeros_like(w.tensor));
  }
}

std::vector<Weight> Adam::state() const {
  std::vector<Weight> all;
  for (size_t i = 0; i < weights_.size(); ++i) {
    all.push_back({"m." + weights_[i].name, first_[i], false});
    all.push_back({"v." + weights_[i].name, second_[i], false});
  }
  return all;
}

double Adam::gradient_norm() const {
  double sum = 0;
  Tensor elsewhere;  // on the device, which is waited for once
  for (const Weight& w : weights_) {
    const Tensor& g = w.tensor.grad();
    if (!g.defined()) continue;
    if (g.device().is_cpu()) {
      const Tensor flat = laid_out_as(w.tensor, g);
      sum += square_sum(flat.data_ptr<float>(), flat.numel());
    } else {
      const Tensor squares = (g * g).sum().to(at::kDouble);
      elsewhere = elsewhere.defined() ? elsewhere + squares : squares;
    }
  }
  return std::sqrt(elsewhere.defined() ? sum + elsewhere.item<double>() : sum);
}

double Adam::update(int64_t step, double lr, double clip) {
  const at::NoGradGuard no_grad;
  const double norm = gradient_norm();
  const double t = double(step + 1);
  const double unbias1 = 1 - std::pow(o_.beta1, t), unbias2 = 1 - std::pow(o_.beta2, t);
  const double scale = clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1;
  const Factors f{float(o_.beta1),
                  float(o_.beta2),
                  float(o_.eps),
                  float(lr / unbias1),
                  float(1 / std::sqrt(unbias2)),
                  o_.decoupled ? 0.0f : float(o_.weight_decay),
                  o_.decoupled ? float(1 - lr * o_.weight_decay) : 1.0f,
                  float(scale)};
  for (size_t k = 0; k < weights_.size(); ++k) {
    Tensor& w = weights_[k].tensor;
    if (!w.grad().defined()) continue;
    if (std::isfinite(norm)) {
      const Tensor g = laid_out_as(w, w.grad());
      if (w.device().is_cpu()) {
        float *pw = w.data_ptr<float>(), *pm = first_[k].data_ptr<float>(), *pv = second_[k].data_ptr<float>();
        const float* pg = g.data_ptr<float>();
        at::parallel_for(0, w.numel(), grain, [&](int64_t b, int64_t e) { adam_kernel(pw + b, pg + b, pm + b, pv + b, e - b, f); });
      } else {
        const Tensor gradient = g * scale + w * double(f.decay);
        first_[k].mul_(o_.beta1).add_(gradient, 1 - o_.beta1);
        second_[k].mul_(o_.beta2).addcmul_(gradient, gradient, 1 - o_.beta2);
        w.mul_(double(f.shrink)).addcdiv_(first_[k], second_[k].sqrt().mul_(double(f.root)).add_(o_.eps), -double(f.step));
      }
    }
    w.mutable_grad().reset();
  }
  return norm;
}

}  // namespace brume
