// Prodigy (Mishchenko & Defazio 2024, alg. 4): Adam that finds its learning rate. d is a lower estimate of the distance from the initial
// weights w0 to a solution; lr stays 1, and warmup and decay shape it.
//
//   r <- b3 r + (d / d0) d lr <g, w0 - w>,  s <- b3 s + (d / d0) d lr g,  d' = d_coef r / |s|_1
//   m <- b1 m + (1 - b1) d g,  v <- b2 v + (1 - b2) d^2 g^2,  w <- w - d lr m / (sqrt(v) + d eps)
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "brume/config/registry.h"
#include "brume/numerics/gradient.h"

namespace brume::plugins {
namespace {

class Prodigy final : public Optimizer {
 public:
  struct Options {
    LearningRate rate{.lr = 1};
    double beta1 = 0.9, beta2 = 0.999, beta3 = 0, eps = 1e-8, weight_decay = 0, d0 = 1e-6, d_coef = 1;
    double growth_rate = std::numeric_limits<double>::infinity();
    bool decoupled = true, bias_correction = false, safeguard_warmup = false;
    void declare(Fields& f) {
      rate.declare(f);
      f.field("beta1", beta1, "decay of the mean of the gradient", within(0, 0.9999999));
      f.field("beta2", beta2, "decay of the mean of its square", within(0, 0.9999999));
      f.field("beta3", beta3, "decay of the sums that d is estimated from; 0 = the root of beta2", within(0, 0.9999999));
      f.field("eps", eps, "keeps the division finite", more_than(0));
      f.field("weight_decay", weight_decay, "pull towards 0", at_least(0));
      f.field("decoupled", decoupled, "the weight decay acts on the weight, not through the gradient");
      f.field("d0", d0, "first estimate of the distance", more_than(0));
      f.field("d_coef", d_coef, "factor of the estimate: the knob to turn, from 0.5 to 2", more_than(0));
      f.field("growth_rate", growth_rate, "largest factor by which d grows per step", at_least(1));
      f.field("bias_correction", bias_correction, "corrects the means as Adam does");
      f.field("safeguard_warmup", safeguard_warmup, "keeps a warm-up out of the denominator of the estimate");
    }
  };
  Prodigy(const Options& o, const Context& c)
      : o_(o),
        step_(c, o.rate, o.weight_decay),
        first_(step_.zeros()),
        second_(step_.zeros()),
        sum_(step_.zeros()),
        distance_(at::zeros({3}, at::TensorOptions().dtype(at::kDouble))) {
    if (!c.counted.empty()) throw ConfigError("prodigy estimates one distance from all weights: train.shard must be none");
    for (const Own& own : c.own)
      if (own.lr && *own.lr != 0 && *own.lr != o.rate.lr)
        throw ConfigError("prodigy finds one learning rate for all: a group's lr can be 0 or the optimizer's, and one is " +
                          std::to_string(*own.lr));
    for (const Weight& w : step_.weights()) start_.push_back(w.tensor.detach().clone());
    d() = d_max() = o.d0;
  }

  double update(int64_t step) override {
    const double lr = learning_rate(step), t = double(learning_rate(0) > 0 ? step + 1 : step);  // an update of rate 0 does not count
    const double correction = o_.bias_correction ? std::sqrt(1 - std::pow(o_.beta2, t)) / (1 - std::pow(o_.beta1, t)) : 1;
    double rate = 0, eps = 0;
    const auto begin = [&](const std::vector<GradientStep::Update>& updates) {
      rate = d() * lr * correction;
      if (!estimate(updates, rate)) rate = 0;
      eps = d() * o_.eps;
    };
    const auto apply = [&](const GradientStep::Update& u) {
      if (u.lr == 0 || rate == 0) return;
      Tensor w = u.weight;
      const Tensor g = o_.beta1 > 0 ? first_[u.index] : regularised(u) * d();
      if (o_.decoupled) w.mul_(1 - u.weight_decay * rate);
      w.addcdiv_(g, second_[u.index].sqrt().add_(eps), -rate);
    };
    return step_.run(step, apply, begin);
  }
  double learning_rate(int64_t step) const override { return step_.learning_rate(step); }
  std::vector<std::pair<std::string, double>> figures() const override { return {{"d", distance_.data_ptr<double>()[0]}}; }

  std::vector<Weight> state() const override {
    std::vector<Weight> all{{"distance", distance_, false}};
    step_.add_state(all, "m", first_);
    step_.add_state(all, "v", second_);
    step_.add_state(all, "s", sum_);
    step_.add_state(all, "start", start_);
    return all;
  }

 private:
  double& d() { return distance_.data_ptr<double>()[0]; }
  double& d_max() { return distance_.data_ptr<double>()[1]; }
  double& numerator() { return distance_.data_ptr<double>()[2]; }

  /// Returns the gradient, with the weight decay that acts through it.
  Tensor regularised(const GradientStep::Update& u) const {
    return o_.decoupled || u.weight_decay == 0 ? u.gradient : u.gradient + u.weight * u.weight_decay;
  }

  /// Brings the means, the sums and d up to date. Returns false if there is nothing to estimate d from: then no weight moves.
  bool estimate(const std::vector<GradientStep::Update>& updates, double rate) {
    const double beta3 = o_.beta3 > 0 ? o_.beta3 : std::sqrt(o_.beta2), before = d(), scale = before / o_.d0;
    double growth = 0, denominator = 0;
    for (const GradientStep::Update& u : updates) {
      if (u.lr == 0) continue;
      const Tensor g = regularised(u);
      growth += scale * rate * sum_of_products(g, start_[u.index] - u.weight);
      first_[u.index].mul_(o_.beta1).add_(g, before * (1 - o_.beta1));
      second_[u.index].mul_(o_.beta2).addcmul_(g, g, before * before * (1 - o_.beta2));
      Tensor& sum = sum_[u.index].mul_(beta3).add_(g, scale * (o_.safeguard_warmup ? before : rate));
      denominator += sum_of_products(sum, sum.sign());
    }
    if (denominator == 0) return false;
    numerator() = numerator() * beta3 + growth;
    const double estimated = o_.d_coef * numerator() / denominator;
    if (before == o_.d0) d() = std::max(before, estimated);
    d_max() = std::max(d_max(), estimated);
    d() = std::min(d_max(), d() * o_.growth_rate);
    return true;
  }

  Options o_;
  GradientStep step_;
  std::vector<Tensor> first_, second_, sum_, start_;
  Tensor distance_;  ///< d, the largest estimate so far, and the numerator r
};

}  // namespace

void register_optimizer_prodigy(Registry& r) { r.add<Optimizer, Prodigy>("prodigy", "Adam that finds its learning rate; lr stays 1"); }

}  // namespace brume::plugins
