// Several modules with several optimizers: each is updated as if it were alone.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "brume/train/optimization.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr const char* adam = "{type: adam, lr: 0.01, clip: 0.5}";
constexpr const char* decaying = "{type: adamw, lr: 0.03, warmup: 2, decay: cosine, clip: 0.5}";
constexpr int64_t steps = 12;

Deferred<Optimizer> optimizer(const std::string& yaml) { return create_deferred<Optimizer>(builtins(), parse_yaml(yaml, "test.yaml")); }

Tensor drawn(uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn({5, 3}, random, at::TensorOptions());
}

std::vector<Weight> weights(const std::string& name, uint64_t seed) {
  return {{name + ".weight", drawn(seed)}, {name + ".buffer", drawn(seed + 1), false}};
}

TrainedModule model(const std::string& yaml = adam) {
  return {.name = "", .weights = weights("network", 1), .optimizer = optimizer(yaml), .ema = EmaOptions{}};
}
TrainedModule judge(const std::string& yaml) {
  return {.name = "judge", .weights = weights("judge", 3), .optimizer = yaml.empty() ? Deferred<Optimizer>() : optimizer(yaml)};
}

void set_gradient(const Weight& w, uint64_t seed) { w.tensor.mutable_grad() = drawn(seed) * 2; }

/// What the weights of a module are after every step; its gradients depend on the step and on `seed` alone.
struct Trained {
  std::map<std::string, std::vector<Tensor>> after;
  explicit Trained(const std::vector<TrainedModule>& modules) {
    Optimization optimization(modules, steps);
    for (int64_t step = 0; step < steps; ++step) {
      for (size_t i = 0; i < modules.size(); ++i) set_gradient(modules[i].weights[0], uint64_t(100 * (i + 1) + size_t(step)));
      EXPECT_TRUE(optimization.update(step));
      optimization.average(step, false);
      for (const TrainedModule& m : modules) {
        EXPECT_FALSE(m.weights[0].tensor.grad().defined());
        for (const Weight& w : m.weights) after[w.name].push_back(w.tensor.detach().clone());
      }
      for (const Weight& w : optimization.state())
        if (w.name.starts_with("ema.")) after[w.name].push_back(w.tensor.clone());
    }
  }
};

bool same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const Tensor& x, const Tensor& y) { return x.equal(y); });
}

TEST(Optimization, AModuleWithItsOwnOptimizerChangesNothingOfTheModel) {
  const Trained alone({model()}), both({model(), judge(decaying)});
  for (const char* name : {"network.weight", "network.buffer", "ema.network.weight"})
    EXPECT_TRUE(same(alone.after.at(name), both.after.at(name))) << name;
  EXPECT_FALSE(both.after.at("judge.weight").back().equal(drawn(3)));
}

TEST(Optimization, TheModuleLearnsAsItsOptimizerWouldAlone) {
  const Trained both({model(), judge(decaying)});
  std::vector<Weight> own{weights("judge", 3)[0]};
  const auto by_hand = optimizer(decaying).make({own, steps});
  own[0].tensor.set_requires_grad(true);
  for (int64_t step = 0; step < steps; ++step) {
    set_gradient(own[0], uint64_t(200 + step));
    by_hand->update(step);
    EXPECT_TRUE(own[0].tensor.detach().equal(both.after.at("judge.weight")[size_t(step)])) << step;
  }
}

TEST(Optimization, WithoutItsOwnItSharesOneNormOfTheGradient) {
  const Trained shared({model(), judge("")}), apart({model(), judge(adam)});
  std::vector<Weight> all{weights("network", 1)[0], weights("judge", 3)[0]};
  const auto one = optimizer(adam).make({all, steps});
  for (const Weight& w : all) Tensor(w.tensor).set_requires_grad(true);
  for (int64_t step = 0; step < steps; ++step) {
    for (size_t i = 0; i < 2; ++i) set_gradient(all[i], uint64_t(100 * (i + 1) + size_t(step)));
    one->update(step);
    EXPECT_TRUE(all[0].tensor.detach().equal(shared.after.at("network.weight")[size_t(step)])) << step;
    EXPECT_TRUE(all[1].tensor.detach().equal(shared.after.at("judge.weight")[size_t(step)])) << step;
  }
  EXPECT_FALSE(same(shared.after.at("network.weight"), apart.after.at("network.weight"))) << "clipping is of both";
}

TEST(Optimization, UpdatesOnceInSoManySteps) {
  TrainedModule every = judge(decaying);
  every.start = 2, every.every = 3;
  const Trained trained({model(), every});
  const std::vector<Tensor>& after = trained.after.at("judge.weight");
  EXPECT_TRUE(after[0].equal(drawn(3)));
  EXPECT_TRUE(after[1].equal(drawn(3)));
  std::vector<Weight> own{weights("judge", 3)[0]};
  const auto by_hand = optimizer(decaying).make({own, 4});  // steps 2, 5, 8, 11
  own[0].tensor.set_requires_grad(true);
  for (int64_t count = 0; count < 4; ++count) {
    const int64_t step = 2 + 3 * count;
    set_gradient(own[0], uint64_t(200 + step));
    by_hand->update(count);
    for (int64_t i = step; i < std::min(step + 3, steps); ++i) EXPECT_TRUE(own[0].tensor.detach().equal(after[size_t(i)])) << i;
  }
}

TEST(Optimization, AnAverageOfItsOwn) {
  TrainedModule averaged = judge(adam);
  averaged.ema = EmaOptions{.decay = 0.5};
  const Trained trained({model(), averaged});
  Tensor shadow = trained.after.at("judge.weight")[0];
  for (size_t step = 1; step < size_t(steps); ++step) {
    const double keep = std::min(0.5, (1 + double(step)) / (10 + double(step)));
    shadow = shadow * keep + trained.after.at("judge.weight")[step] * (1 - keep);
    EXPECT_TRUE(shadow.allclose(trained.after.at("ema.helpers.judge.weight")[step], 1e-5, 1e-6)) << step;
  }
}

TEST(Optimization, AGradientThatIsNotFiniteStopsItsModuleAlone) {
  const std::vector<TrainedModule> modules{model(), judge(adam)};
  Optimization optimization(modules, steps);
  set_gradient(modules[0].weights[0], 1);
  modules[1].weights[0].tensor.mutable_grad() = at::full({5, 3}, std::numeric_limits<double>::infinity());
  EXPECT_FALSE(optimization.update(0));
  EXPECT_TRUE(optimization.updated_model());
  EXPECT_FALSE(modules[0].weights[0].tensor.detach().equal(drawn(1)));
  EXPECT_TRUE(modules[1].weights[0].tensor.detach().equal(drawn(3)));
}

TEST(Optimization, ItsStateIsNamedAndWhole) {
  std::vector<std::string> names;
  for (const Weight& w : Optimization({model(), judge(""), judge(adam)}, steps).state()) names.push_back(w.name);
  EXPECT_EQ(names, (std::vector<std::string>{"weights.network.weight", "weights.network.buffer", "helpers.judge.weight",
                                             "helpers.judge.buffer", "helpers.judge.weight", "helpers.judge.buffer", "ema.network.weight",
                                             "ema.network.buffer", "optimizer.m.network.weight", "optimizer.v.network.weight",
                                             "optimizer.m.helpers.judge.weight", "optimizer.v.helpers.judge.weight",
                                             "optimizers.judge.m.helpers.judge.weight", "optimizers.judge.v.helpers.judge.weight"}));
}

TEST(Optimization, AGroupOfWeightsHasItsOwnLearningRate) {
  TrainedModule grouped = model(), slow = model("{type: adam, lr: 0.002, clip: 0.5}");
  grouped.own = own_settings({{"network.w*", 0.002, {}}}, grouped.weights);
  EXPECT_TRUE(same(Trained({grouped}).after.at("network.weight"), Trained({slow}).after.at("network.weight")));
  EXPECT_FALSE(same(Trained({grouped}).after.at("network.weight"), Trained({model()}).after.at("network.weight")));
}

TEST(Optimization, TheLastGroupThatMatchesCounts) {
  const std::vector<Weight> two{weights("a", 1)[0], weights("b", 2)[0]};
  const auto own = own_settings({{"*", 0.5, 0.25}, {"b.*", 0.125, {}}}, two);
  EXPECT_EQ(own.at("a.weight").lr, 0.5);
  EXPECT_EQ(own.at("a.weight").weight_decay, 0.25);
  EXPECT_EQ(own.at("b.weight").lr, 0.125);
  EXPECT_FALSE(own.at("b.weight").weight_decay.has_value());
}

TEST(Optimization, AGroupOfNothing) {
  EXPECT_EQ(error_of([] {
              own_settings({{"netwrok.*", 0.5, {}}}, weights("network", 1));
            }),
            "train.groups.0.match: 'netwrok.*' matches no weight; did you mean 'network.*'?");
  EXPECT_EQ(error_of([] {
              own_settings({{"*.buffer", 0.5, {}}}, weights("network", 1));
            }),
            "train.groups.0.match: '*.buffer' matches no weight that is trained");
}

TEST(Optimization, TheAverageIsOfTheEvaluatedWeights) {
  TrainedModule free = model("{type: schedule_free, lr: 0.05, clip: 0}");
  free.ema->decay = 0;
  const Trained trained({free});
  std::vector<Weight> own{weights("network", 1)[0]};
  const auto by_hand = optimizer("{type: schedule_free, lr: 0.05, clip: 0}").make({own, steps});
  for (int64_t step = 0; step < steps; ++step) {
    set_gradient(own[0], uint64_t(100 + step));
    by_hand->update(step);
    EXPECT_TRUE(own[0].tensor.detach().equal(trained.after.at("network.weight")[size_t(step)])) << step;
    EXPECT_TRUE(by_hand->evaluated()[0].equal(trained.after.at("ema.network.weight")[size_t(step)])) << step;
  }
  EXPECT_FALSE(same(trained.after.at("network.weight"), trained.after.at("ema.network.weight")));
}

TEST(Optimization, FiguresOfEveryOptimizer) {
  Optimization optimization({model(), judge(decaying)}, steps);
  std::vector<std::string> names;
  for (const auto& [name, value] : optimization.figures(0)) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"grad_norm", "lr", "ema_decay", "judge.grad_norm", "judge.lr"}));
  EXPECT_THROW(Optimization({judge(adam)}, steps), std::logic_error);
}

}  // namespace
}  // namespace brume::test
