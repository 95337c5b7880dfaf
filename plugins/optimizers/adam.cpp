// Adam (Kingma & Ba 2015), whose weight decay acts through the gradient; and AdamW (Loshchilov & Hutter 2019), which takes it out of there.
#include "brume/numerics/adam.h"
#include "brume/config/registry.h"
#include "brume/numerics/learning_rate.h"

namespace brume::plugins {
namespace {

template <bool decoupled>
struct AdamSettings {
  LearningRate rate;
  AdamOptions adam{.weight_decay = decoupled ? 0.01 : 0, .decoupled = decoupled};
  void declare(Fields& f) {
    rate.declare(f);
    f.field("beta1", adam.beta1, "decay of the mean of the gradient", within(0, 0.9999999));
    f.field("beta2", adam.beta2, "decay of the mean of its square", within(0, 0.9999999));
    f.field("eps", adam.eps, "keeps the division finite", more_than(0));
    f.field("weight_decay", adam.weight_decay, "pull towards 0", at_least(0));
  }
};

template <bool decoupled>
class AdamOptimizer final : public Optimizer {
 public:
  using Options = AdamSettings<decoupled>;
  AdamOptimizer(const Options& o, const Context& c) : adam_(c, o.rate, o.adam) {}
  double update(int64_t step) override { return adam_.update(step); }
  double learning_rate(int64_t step) const override { return adam_.learning_rate(step); }
  std::vector<Weight> state() const override { return adam_.state(); }

 private:
  Adam adam_;
};

}  // namespace

void register_optimizer_adam(Registry& r) {
  r.add<Optimizer, AdamOptimizer<false>>("adam", "Adam");
  r.add<Optimizer, AdamOptimizer<true>>("adamw", "Adam with decoupled weight decay");
}

}  // namespace brume::plugins
