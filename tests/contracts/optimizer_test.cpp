// Every optimizer: goes downhill, clips, survives a bad gradient, and continues bit for bit from its saved state.
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <limits>
#include <set>

#include "optimizers.h"
#include "support/refs.h"

namespace brume::test {
namespace {

class OptimizerContract : public testing::TestWithParam<Specimen> {
 protected:
  /// The plugin with these keys besides its own.
  std::shared_ptr<Optimizer> optimizer(const std::vector<Weight>& weights, const std::string& keys = "", int64_t steps = 1000) const {
    return make<Optimizer>(GetParam().yaml, {.weights = weights, .steps = steps}, keys);
  }
};

TEST_P(OptimizerContract, MinimisesAQuadratic) {
  const std::vector<Weight> weights = some_weights(1);
  const bool itself = GetParam().name == "prodigy", matrices = GetParam().name == "muon";  // finds its rate; moves matrices by their norm
  const std::string rate = itself || matrices ? "lr: 1" : "lr: 0.05";
  const auto opt = optimizer(weights, rate + ", warmup: 0, decay: cosine, clip: 0" + (matrices ? ", adam: {lr: 0.05}" : ""), 300);
  const auto loss = [&] {
    double sum = 0;
    for (const Weight& w : weights) sum += (w.tensor.detach() - 0.5).pow(2).mean().item<double>();
    return sum;
  };
  const double before = loss();
  for (int64_t step = 0; step < 300; ++step) {
    for (const Weight& w : weights) Tensor(w.tensor).mutable_grad() = 2 * (w.tensor.detach() - 0.5);
    opt->update(step);
  }
  EXPECT_LT(loss(), 0.01 * before);
}

TEST_P(OptimizerContract, GradientsAreClearedAndTheirNormReturned) {
  const std::vector<Weight> weights = some_weights(1);
  const auto opt = optimizer(weights);
  set_gradients(weights, 2);
  double square = 0;
  for (const Weight& w : weights) square += w.tensor.grad().to(at::kDouble).pow(2).sum().item<double>();
  EXPECT_NEAR(opt->update(0), std::sqrt(square), 1e-9 * std::sqrt(square));
  for (const Weight& w : weights) EXPECT_FALSE(w.tensor.grad().defined());
}

TEST_P(OptimizerContract, ClippingScalesTheWholeGradient) {
  const std::vector<Weight> clipped = some_weights(1), scaled = some_weights(1), loose = some_weights(1), free = some_weights(1);
  const auto a = optimizer(clipped, "clip: 2"), b = optimizer(scaled, "clip: 0"), c = optimizer(loose, "clip: 1.0e+9"),
             d = optimizer(free, "clip: 0");
  for (int64_t step = 0; step < 5; ++step) {
    const double scale = step == 2 ? 1e-3 : 10;  // one gradient is below the limit
    set_gradients(clipped, uint64_t(step), scale);
    set_gradients(loose, uint64_t(step), scale);
    set_gradients(free, uint64_t(step), scale);
    const double norm = a->update(step);
    set_gradients(scaled, uint64_t(step), norm > 2 ? scale * 2 / (norm + 1e-6) : scale);
    b->update(step), c->update(step), d->update(step);
  }
  for (size_t i = 0; i < clipped.size(); ++i) EXPECT_LT((clipped[i].tensor - scaled[i].tensor).abs().max().item<double>(), 1e-5) << i;
  EXPECT_TRUE(same(loose, free));
  EXPECT_FALSE(same(clipped, free));
}

TEST_P(OptimizerContract, ABadGradientUpdatesNothing) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const std::vector<Weight> weights = some_weights(1);
    const auto opt = optimizer(weights);
    set_gradients(weights, 2);
    opt->update(0);
    const std::vector<Tensor> before = values(weights), state = values(opt->state());
    set_gradients(weights, 3);
    Tensor(weights[2].tensor).mutable_grad()[5][7] = bad;
    EXPECT_FALSE(std::isfinite(opt->update(1)));
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_TRUE(at::equal(weights[i].tensor.detach(), before[i])) << i;
      EXPECT_FALSE(weights[i].tensor.grad().defined());
    }
    const std::vector<Weight> after = opt->state();
    for (size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(at::equal(after[i].tensor, state[i])) << after[i].name;
  }
}

TEST_P(OptimizerContract, AWeightHasItsOwnLearningRateAndDecay) {
  const std::string keys = GetParam().name == "prodigy" ? "lr: 1" : "lr: 0.01, weight_decay: 0.1";
  const auto trained = [&](const std::vector<Optimizer::Own>& own) {
    const std::vector<Weight> weights = some_weights(1);
    const auto opt = make<Optimizer>(GetParam().yaml, {.weights = weights, .steps = 1000, .own = own}, keys);
    for (int64_t step = 0; step < 3; ++step) {
      set_gradients(weights, uint64_t(step));
      opt->update(step);
    }
    return weights;
  };
  const std::vector<Weight> none = trained({}), empty = trained(std::vector<Optimizer::Own>(4)),
                            own = trained({{}, {.lr = 0, .weight_decay = {}}, {.lr = {}, .weight_decay = 0.5}, {}});
  EXPECT_TRUE(same(none, empty));
  EXPECT_TRUE(at::equal(own[1].tensor.detach(), some_weights(1)[1].tensor.detach())) << "a rate of 0";
  EXPECT_FALSE(at::equal(own[2].tensor.detach(), none[2].tensor.detach())) << "another decay";
  if (GetParam().name == "prodigy") return;  // its one estimate is of all weights
  EXPECT_TRUE(at::equal(own[0].tensor.detach(), none[0].tensor.detach()));
  EXPECT_TRUE(at::equal(own[3].tensor.detach(), none[3].tensor.detach()));
}

TEST_P(OptimizerContract, ClippingByValueBoundsEveryNumber) {
  const std::vector<Weight> clipped = some_weights(1), bounded = some_weights(1);
  const auto a = optimizer(clipped, "clip: 0, clip_value: 0.5"), b = optimizer(bounded, "clip: 0");
  for (int64_t step = 0; step < 3; ++step) {
    set_gradients(clipped, uint64_t(step));
    set_gradients(bounded, uint64_t(step));
    for (const Weight& w : bounded) w.tensor.mutable_grad().clamp_(-0.5, 0.5);
    a->update(step), b->update(step);
  }
  EXPECT_TRUE(same(clipped, bounded));
}

TEST_P(OptimizerContract, AWeightWithoutAGradientStays) {
  const std::vector<Weight> weights = some_weights(1);
  const auto opt = optimizer(weights);
  const Tensor before = weights[1].tensor.detach().clone();
  set_gradients(weights, 2);
  Tensor(weights[1].tensor).mutable_grad().reset();
  opt->update(0);
  EXPECT_TRUE(at::equal(weights[1].tensor.detach(), before));
  EXPECT_FALSE(at::equal(weights[0].tensor.detach(), some_weights(1)[0].tensor.detach()));
}

TEST_P(OptimizerContract, ContinuesBitForBitFromItsState) {
  const std::string keys = "warmup: 3, decay: cosine, weight_decay: 0.01, clip: 1";
  const std::vector<Weight> straight = some_weights(1), halted = some_weights(1), resumed = some_weights(99);
  const auto train = [&](Optimizer& opt, const std::vector<Weight>& weights, int64_t from, int64_t to) {
    for (int64_t step = from; step < to; ++step) {
      set_gradients(weights, uint64_t(step));
      opt.update(step);
    }
  };
  const auto a = optimizer(straight, keys, 20);
  train(*a, straight, 0, 12);
  const auto b = optimizer(halted, keys, 20);
  train(*b, halted, 0, 6);
  const auto c = optimizer(resumed, keys, 20);
  copy(halted, resumed);
  copy(b->state(), c->state());
  train(*c, resumed, 6, 12);
  EXPECT_TRUE(same(straight, resumed));
  EXPECT_TRUE(same(a->state(), c->state()));
  EXPECT_FALSE(same(halted, resumed));
}

TEST_P(OptimizerContract, ItsStateHasUniqueNames) {
  const auto opt = optimizer(some_weights(1));
  std::set<std::string> names;
  for (const Weight& w : opt->state()) EXPECT_TRUE(names.insert(w.name).second) << w.name;
}

TEST_P(OptimizerContract, TheLearningRateOfTheReference) {
  BRUME_NEED_REF("training_misc.json");
  const int64_t ahead = GetParam().name == "schedule_free" ? 1 : 0;  // its authors' warm-up begins one step later
  for (const auto& [name, reference] : ref_json("training_misc.json")["lr_schedules"].items()) {
    SCOPED_TRACE(name);
    const auto& kwargs = reference["kwargs"];
    const std::string keys = "lr: 0.001, warmup: " + std::to_string(kwargs.value("num_warmup_steps", 0)) +
                             (name.starts_with("cosine") ? ", decay: cosine" : ", decay: constant");
    const auto opt = optimizer(some_weights(1), keys, kwargs.value("num_training_steps", 100));
    const auto& rates = reference["lr_at_step_0_to_100"];
    ASSERT_EQ(rates.size(), 101u);
    for (size_t step = size_t(ahead); step < rates.size(); ++step)
      EXPECT_NEAR(opt->learning_rate(int64_t(step) - ahead), rates[step].get<double>(), 1e-15) << step;
  }
}

TEST_P(OptimizerContract, TheLearningRateIsUsed) {
  if (GetParam().name == "schedule_free") GTEST_SKIP() << "its warm-up has no step of rate 0";
  const std::vector<Weight> weights = some_weights(1);
  const auto opt = optimizer(weights, "warmup: 4");
  set_gradients(weights, 2);
  EXPECT_EQ(opt->learning_rate(0), 0);
  opt->update(0);  // a rate of 0: nothing moves
  EXPECT_TRUE(same(weights, some_weights(1)));
  set_gradients(weights, 3);
  opt->update(1);
  EXPECT_FALSE(same(weights, some_weights(1)));
}

INSTANTIATE_TEST_SUITE_P(Registry, OptimizerContract,
                         testing::ValuesIn(specimens("optimizer",
                                                     {"{type: adam, weight_decay: 0.1}", "{type: adamw, weight_decay: 0.1, beta1: 0}"})),
                         readable);

}  // namespace
}  // namespace brume::test
