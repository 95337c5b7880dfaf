// Schedule-free learning (Defazio et al. 2024, "The Road Less Scheduled", alg. 1): gradients are taken at y, between a fast point z and the
// average x of its path; x is what the model is evaluated and saved with. No schedule is needed.
//
//   y = (1 - beta1) z + beta1 x,  z <- z - lr (d + decay y),  x <- (1 - c) x + c z,  c = weight / sum of weights,  weight = t^r lr_max^2
//
// d is the gradient (sgd), or the gradient over the root of its mean square (adamw; radam: rectified, Liu et al. 2020, silent until that is
// defined). The training updates y in place of x: y <- (1 - c) y + c z - lr (1 - beta1 (1 - c)) (d + decay y).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/gradient.h"

namespace brume::plugins {
namespace {

class ScheduleFree final : public Optimizer {
 public:
  enum class Base { adamw, radam, sgd };
  struct Options {
    LearningRate rate{.lr = 2.5e-3};
    Base base = Base::adamw;
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, r = 0, lr_power = 2;
    void declare(Fields& f) {
      rate.declare(f);
      f.choice("base", base, "the direction of a step", {{"adamw", Base::adamw}, {"radam", Base::radam}, {"sgd", Base::sgd}});
      f.field("beta1", beta1, "share of the average in the point where gradients are taken", within(0.01, 0.9999999));
      f.field("beta2", beta2, "decay of the mean square of the gradient", within(0, 0.9999999));
      f.field("eps", eps, "keeps the division finite", more_than(0));
      f.field("weight_decay", weight_decay, "pull towards 0", at_least(0));
      f.field("r", r, "power of the step in the weights of the average", at_least(0));
      f.field("lr_power", lr_power, "power of the largest learning rate in the weights of the average", at_least(0));
      f.unused(base == Base::sgd, {"beta2", "eps"}, "base is sgd");
    }
  };
  ScheduleFree(const Options& o, const Context& c)
      : o_(o), step_(c, o.rate, o.weight_decay), square_(step_.zeros()), memory_(at::zeros({2}, at::TensorOptions().dtype(at::kDouble))) {
    for (const Weight& w : step_.weights()) fast_.push_back(w.tensor.detach().clone());
  }

  double update(int64_t step) override {
    const double t = double(step + 1), unbias = 1 - std::pow(o_.beta2, t), rectified = rectification(t);
    const bool divides = o_.base == Base::adamw || (o_.base == Base::radam && rectified > 0);
    double share = 0;
    const auto begin = [&](const std::vector<GradientStep::Update>&) {
      double& largest = memory_.data_ptr<double>()[0];
      double& sum = memory_.data_ptr<double>()[1];
      largest = std::max(largest, learning_rate(step) * rectified);
      const double weight = std::pow(t, o_.r) * std::pow(largest, o_.lr_power);
      sum += weight;
      share = sum > 0 ? weight / sum : 0;
    };
    const auto apply = [&](const GradientStep::Update& u) {
      // One step ahead: the first update of a warm-up is not of rate 0.
      const double lr = step_.learning_rate(step + 1, u.index) * rectified;
      Tensor direction = u.gradient;
      if (o_.base != Base::sgd) {
        square_[u.index].mul_(o_.beta2).addcmul_(u.gradient, u.gradient, 1 - o_.beta2);
        if (divides) direction = u.gradient / (square_[u.index] / unbias).sqrt_().add_(o_.eps);
      }
      if (u.weight_decay != 0) direction = direction + u.weight * u.weight_decay;
      Tensor(u.weight).lerp_(fast_[u.index], share).add_(direction, lr * (o_.beta1 * (1 - share) - 1));
      fast_[u.index].sub_(direction, lr);
    };
    return step_.run(step, apply, begin);
  }

  double learning_rate(int64_t step) const override { return step_.learning_rate(step + 1); }

  std::vector<Tensor> evaluated() const override {
    const at::NoGradGuard no_grad;
    std::vector<Tensor> average;
    for (size_t i = 0; i < fast_.size(); ++i) {
      const Tensor w = step_.weights()[i].tensor.detach();
      average.push_back(at::empty_like(w).copy_(w + (fast_[i] - w) * (1 - 1 / o_.beta1)));  // laid out as the weight, and rounded alike
    }
    return average;
  }

  std::vector<Weight> state() const override {
    std::vector<Weight> all{{"average", memory_, false}};
    step_.add_state(all, "z", fast_);
    step_.add_state(all, "v", square_);
    return all;
  }

 private:
  /// Returns the factor of RAdam's learning rate at step t, counted from 1; 1 of the others.
  double rectification(double t) const {
    if (o_.base != Base::radam) return 1;
    const double end = 2 / (1 - o_.beta2) - 1, power = std::pow(o_.beta2, t), rho = end - 2 * t * power / (1 - power);
    return rho > 4 ? std::sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho)) : 0;
  }

  Options o_;
  GradientStep step_;
  std::vector<Tensor> fast_, square_;  ///< z, v
  Tensor memory_;                      ///< the largest learning rate so far, and the sum of the weights of the average
};

}  // namespace

void register_optimizer_schedule_free(Registry& r) {
  r.add<Optimizer, ScheduleFree>("schedule_free", "Adam or SGD with an average in place of a schedule");
}

}  // namespace brume::plugins
