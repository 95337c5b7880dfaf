// Lion (Chen et al. 2023, alg. 2): the sign of a mean of gradients, with decoupled weight decay.
//
//   w <- w - lr (sign(b1 m + (1 - b1) g) + decay w),  m <- b2 m + (1 - b2) g
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/numerics/gradient.h"

namespace brume::plugins {
namespace {

class Lion final : public Optimizer {
 public:
  struct Options {
    LearningRate rate{.lr = 3e-5};
    double beta1 = 0.9, beta2 = 0.99, weight_decay = 0;
    bool decay_per_step = false;
    void declare(Fields& f) {
      rate.declare(f);
      f.field("beta1", beta1, "share of the mean of the gradient in the step", within(0, 0.9999999));
      f.field("beta2", beta2, "decay of that mean", within(0, 0.9999999));
      f.field("weight_decay", weight_decay, "pull towards 0, in units of the learning rate", at_least(0));
      f.field("decay_per_step", decay_per_step, "weight_decay is the pull per step of weights whose learning rate is lr, whatever that is");
    }
  };
  Lion(const Options& o, const Context& c) : o_(o), step_(c, o.rate, o.weight_decay), mean_(step_.zeros()) {}

  double update(int64_t step) override {
    return step_.run(step, [&](const GradientStep::Update& u) {
      Tensor& mean = mean_[u.index];
      const double shrink = 1 - (o_.decay_per_step ? u.lr / o_.rate.lr : u.lr) * u.weight_decay;
      Tensor(u.weight).mul_(shrink).add_((mean * o_.beta1).add_(u.gradient, 1 - o_.beta1).sign_(), -u.lr);
      mean.mul_(o_.beta2).add_(u.gradient, 1 - o_.beta2);
    });
  }
  double learning_rate(int64_t step) const override { return step_.learning_rate(step); }
  std::vector<Weight> state() const override {
    std::vector<Weight> all;
    step_.add_state(all, "m", mean_);
    return all;
  }

 private:
  Options o_;
  GradientStep step_;
  std::vector<Tensor> mean_;
};

}  // namespace

void register_optimizer_lion(Registry& r) { r.add<Optimizer, Lion>("lion", "Lion: the sign of a mean of gradients"); }

}  // namespace brume::plugins
