#include "brume/numerics/gradient.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace brume {
namespace {

constexpr int64_t grain = 16384;  // values per task; sums are taken per task, so that they do not depend on the threads

template <class T>
double sum_of_products(const T* a, const T* b, int64_t n) {
  std::vector<double> parts(size_t((n + grain - 1) / grain));
  at::parallel_for(0, int64_t(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      double lanes[8] = {};
      const int64_t first = p * grain, last = std::min(n, first + grain);
      for (int64_t i = first; i < last; ++i) lanes[i & 7] += double(a[i]) * double(b[i]);
      for (const double l : lanes) parts[size_t(p)] += l;
    }
  });
  double sum = 0;
  for (const double p : parts) sum += p;
  return sum;
}

/// Returns the sum of products of CPU tensors that are laid out alike without gaps.
double flat_sum(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == at::kDouble ? sum_of_products(a.data_ptr<double>(), b.data_ptr<double>(), a.numel())
                                        : sum_of_products(a.data_ptr<float>(), b.data_ptr<float>(), a.numel());
}

}  // namespace

Tensor gradient_of(const Tensor& weight) {
  const Tensor& gradient = weight.grad();
  return gradient.strides() == weight.strides() ? gradient : at::empty_like(weight).copy_(gradient);
}

double sum_of_products(const Tensor& a, const Tensor& b) {
  if (!a.device().is_cpu()) return (a * b).sum().to(at::kDouble).item<double>();
  return flat_sum(a.contiguous(), b.contiguous());
}

double gradient_norm(const std::vector<Weight>& weights) {
  double sum = 0;
  Tensor elsewhere;  // on the device, which is waited for once
  for (const Weight& w : weights) {
    const Tensor& g = w.tensor.grad();
    if (!g.defined()) continue;
    if (g.device().is_cpu()) {
      const Tensor flat = gradient_of(w.tensor);
      sum += flat_sum(flat, flat);
    } else {
      const Tensor squares = (g * g).sum().to(at::kDouble);
      elsewhere = elsewhere.defined() ? elsewhere + squares : squares;
    }
  }
  return std::sqrt(elsewhere.defined() ? sum + elsewhere.item<double>() : sum);
}

GradientStep::GradientStep(const Optimizer::Context& context, const LearningRate& rate, double weight_decay)
    : weights_(context.weights),
      counted_(context.counted),
      own_(context.own),
      steps_(context.steps),
      rate_(rate),
      weight_decay_(weight_decay) {
  if (own_.empty()) own_.resize(weights_.size());
  if (own_.size() != weights_.size()) throw std::logic_error("an optimizer's weights and their own settings differ in number");
}

double GradientStep::learning_rate(int64_t step, size_t index) const { return rate_.at(step, steps_, own_[index].lr.value_or(rate_.lr)); }

double GradientStep::weight_decay(size_t index) const { return own_[index].weight_decay.value_or(weight_decay_); }

double GradientStep::run(int64_t step, const std::function<void(const Update&)>& apply,
                         const std::function<void(const std::vector<Update>&)>& begin) {
  const at::NoGradGuard no_grad;
  const double norm = gradient_norm(counted()), scale = clip_factor(norm, rate_.clip);
  std::vector<Update> updates;
  for (size_t i = 0; std::isfinite(norm) && i < weights_.size(); ++i) {
    const Tensor& w = weights_[i].tensor;
    if (!w.grad().defined()) continue;
    Tensor g = gradient_of(w).detach();
    if (scale != 1) g = g * scale;
    if (rate_.clip_value > 0) g = g.clamp(-rate_.clip_value, rate_.clip_value);
    updates.push_back({i, w.detach(), std::move(g), learning_rate(step, i), weight_decay(i)});
  }
  if (begin && !updates.empty()) begin(updates);
  for (const Update& update : updates) apply(update);
  for (const Weight& w : weights_) w.tensor.mutable_grad().reset();
  return norm;
}

std::vector<Tensor> GradientStep::zeros() const {
  std::vector<Tensor> all;
  for (const Weight& w : weights_) all.push_back(at::zeros_like(w.tensor.detach()));
  return all;
}

void GradientStep::add_state(std::vector<Weight>& state, const std::string& prefix, const std::vector<Tensor>& tensors) const {
  for (size_t i = 0; i < weights_.size(); ++i) state.push_back({prefix + "." + weights_[i].name, tensors[i], false});
}

}  // namespace brume
