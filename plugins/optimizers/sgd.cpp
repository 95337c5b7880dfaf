// Stochastic gradient descent with momentum (Polyak 1964), or Nesterov's (Sutskever et al. 2013), as PyTorch writes them. The weight decay
// acts through the gradient.
//
//   g <- g + decay w,  m <- momentum m + g,  w <- w - lr m   (Nesterov: w - lr (g + momentum m))
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/numerics/gradient.h"

namespace brume::plugins {
namespace {

class Sgd final : public Optimizer {
 public:
  struct Options {
    LearningRate rate{.lr = 1e-2};
    double momentum = 0.9, weight_decay = 0;
    bool nesterov = false;
    void declare(Fields& f) {
      rate.declare(f);
      f.field("momentum", momentum, "decay of the sum of gradients", within(0, 0.9999999));
      f.field("nesterov", nesterov, "looks one step of the momentum ahead");
      f.field("weight_decay", weight_decay, "pull towards 0", at_least(0));
      f.require(!nesterov || momentum > 0, "nesterov", "needs a momentum");
    }
  };
  Sgd(const Options& o, const Context& c) : o_(o), step_(c, o.rate, o.weight_decay), sum_(step_.zeros()) {}

  double update(int64_t step) override {
    return step_.run(step, [&](const GradientStep::Update& u) {
      const Tensor g = u.gradient + u.weight * u.weight_decay;
      const Tensor& sum = sum_[u.index].mul_(o_.momentum).add_(g);
      Tensor(u.weight).add_(o_.nesterov ? g + sum * o_.momentum : sum, -u.lr);
    });
  }
  double learning_rate(int64_t step) const override { return step_.learning_rate(step); }
  std::vector<Weight> state() const override {
    std::vector<Weight> all;
    step_.add_state(all, "m", sum_);
    return all;
  }

 private:
  Options o_;
  GradientStep step_;
  std::vector<Tensor> sum_;
};

}  // namespace

void register_optimizer_sgd(Registry& r) { r.add<Optimizer, Sgd>("sgd", "gradient descent with momentum"); }

}  // namespace brume::plugins
