#include "brume/numerics/adam.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

namespace brume {
namespace {

constexpr int64_t grain = 16384;  // values per task

struct Factors {
  float beta1, beta2, eps, step, root, decay, shrink, scale, limit;
};

void adam_kernel(float* w, const float* g, float* m, float* v, int64_t n, const Factors& f) {
  for (int64_t i = 0; i < n; ++i) {
    const float gradient = std::clamp(g[i] * f.scale, -f.limit, f.limit) + f.decay * w[i];
    m[i] = f.beta1 * m[i] + (1 - f.beta1) * gradient;
    v[i] = f.beta2 * v[i] + (1 - f.beta2) * gradient * gradient;
    w[i] = f.shrink * w[i] - f.step * m[i] / (std::sqrt(v[i]) * f.root + f.eps);
  }
}

}  // namespace

Adam::Adam(const Optimizer::Context& context, const LearningRate& rate, const AdamOptions& options)
    : weights_(context, rate, options.weight_decay), first_(weights_.zeros()), second_(weights_.zeros()), o_(options), rate_(rate) {}

std::vector<Weight> Adam::state() const {
  std::vector<Weight> all;
  const std::vector<Weight>& weights = weights_.weights();
  for (size_t i = 0; i < weights.size(); ++i) {
    all.push_back({"m." + weights[i].name, first_[i], false});
    all.push_back({"v." + weights[i].name, second_[i], false});
  }
  return all;
}

double Adam::update(int64_t step) {
  const at::NoGradGuard no_grad;
  const std::vector<Weight>& weights = weights_.weights();
  const double norm = gradient_norm(weights_.counted());
  const double t = double(step + 1);
  const double unbias1 = 1 - std::pow(o_.beta1, t), unbias2 = 1 - std::pow(o_.beta2, t);
  Factors f{};
  f.beta1 = float(o_.beta1), f.beta2 = float(o_.beta2), f.eps = float(o_.eps);
  f.root = float(1 / std::sqrt(unbias2));
  f.scale = float(clip_factor(norm, rate_.clip));
  f.limit = rate_.clip_value > 0 ? float(rate_.clip_value) : std::numeric_limits<float>::infinity();
  for (size_t k = 0; k < weights.size(); ++k) {
    Tensor w = weights[k].tensor;
    if (!w.grad().defined()) continue;
    if (std::isfinite(norm)) {
      const double lr = weights_.learning_rate(step, k), decay = weights_.weight_decay(k);
      f.step = float(lr / unbias1);
      f.decay = o_.decoupled ? 0.0f : float(decay);
      f.shrink = o_.decoupled ? float(1 - lr * decay) : 1.0f;
      const Tensor g = gradient_of(w);
      if (w.device().is_cpu()) {
        float *pw = w.data_ptr<float>(), *pm = first_[k].data_ptr<float>(), *pv = second_[k].data_ptr<float>();
        const float* pg = g.data_ptr<float>();
        at::parallel_for(0, w.numel(), grain, [&](int64_t b, int64_t e) { adam_kernel(pw + b, pg + b, pm + b, pv + b, e - b, f); });
      } else {
        const Tensor gradient = (g * double(f.scale)).clamp(-double(f.limit), double(f.limit)) + w * double(f.decay);
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
