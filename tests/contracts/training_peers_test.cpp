// Learning rates, weights of noise levels and optimizers against what other programs compute (tests/parity/references/training_peers.json;
// its script has the versions), in float64.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/core/objective.h"
#include "brume/core/optimizer.h"
#include "support/registry.h"

namespace brume::test {
namespace {

using nlohmann::json;

const json& peers() {
  static const json all = json::parse(std::ifstream(BRUME_SOURCE_DIR "/tests/parity/references/training_peers.json"));
  return all;
}

/// The sines of the script.
Tensor wave(const std::vector<int64_t>& shape, double rate, double phase) {
  int64_t count = 1;
  for (const int64_t n : shape) count *= n;
  return (at::arange(count, at::TensorOptions().dtype(at::kDouble)) * rate + phase).sin().view(shape);
}

TEST(TrainingPeers, Optimizers) {
  const std::vector<std::vector<int64_t>> shapes{{2, 3}, {3}, {2, 1, 2, 1}};
  for (const json& c : peers()["optimizers"]) {
    Optimizer::Context context{.weights = {}, .steps = 100, .own = std::vector<Optimizer::Own>(3)};
    for (size_t i = 0; i < 3; ++i)
      context.weights.push_back({std::string(1, "WbK"[i]), wave(shapes[i], 0.7, double(i)).set_requires_grad(true)});
    if (c["own_of_b"].contains("lr")) context.own[1].lr = c["own_of_b"]["lr"].get<double>();
    if (c["own_of_b"].contains("weight_decay")) context.own[1].weight_decay = c["own_of_b"]["weight_decay"].get<double>();
    const std::string yaml = fmt::format("{{type: {}, clip: 0, {}}}", c["type"].get<std::string>(), c["options"].get<std::string>());
    const auto optimizer = make<Optimizer>(yaml, context);
    for (size_t step = 0; step < c["steps"].size(); ++step) {
      for (size_t i = 0; i < 3; ++i) {
        const Tensor w = context.weights[i].tensor;
        w.mutable_grad() = wave(shapes[i], 0.9, 1.3 * double(step) + double(i)) + w.detach() * 0.5;
      }
      optimizer->update(int64_t(step));
      for (const Weight& w : context.weights) {
        const Tensor expected = at::tensor(c["steps"][step][w.name].get<std::vector<double>>(), w.tensor.options().requires_grad(false));
        ASSERT_LT((w.tensor.detach().flatten() - expected).abs().max().item<double>(), 1e-9)
            << yaml << ", " << w.name << ", update " << step;
      }
    }
  }
}

TEST(TrainingPeers, LearningRates) {
  for (const json& c : peers()["learning_rates"]) {
    const std::string yaml =
        fmt::format("{{type: sgd, lr: 1, warmup: {}, decay: {}}}", c["warmup"].get<int64_t>(), c["decay"].get<std::string>());
    const auto optimizer = make<Optimizer>(yaml, {.weights = {{"w", wave({1}, 1, 1)}}, .steps = c["steps"]});
    for (int64_t step = 0; step < c["steps"].get<int64_t>(); ++step)
      EXPECT_NEAR(optimizer->learning_rate(step), c["rates"][size_t(step)].get<double>(), 1e-12) << yaml << ", step " << step;
  }
}

TEST(TrainingPeers, WeightsOfNoiseLevels) {
  for (const json& c : peers()["weightings"]) {
    const auto weighting = make<Weighting>(c["weighting"]);
    const Target target = c["target"] == "flow" ? Target::flow : c["target"] == "v" ? Target::v : Target::noise;
    for (size_t i = 0; i < c["sigmas"].size(); ++i) {
      const double wanted = c["weights"][i];
      EXPECT_NEAR(weighting->weight(c["sigmas"][i], target), wanted, 1e-6 * wanted) << c["weighting"] << " at " << c["sigmas"][i];
    }
  }
}

}  // namespace
}  // namespace brume::test
