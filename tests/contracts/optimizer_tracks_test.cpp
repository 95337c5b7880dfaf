// Optimizers against the tracks of their authors' programs: ten and more updates of float64 weights.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "brume/core/optimizer.h"
#include "support/refs.h"
#include "support/registry.h"

namespace brume::test {
namespace {

using Json = nlohmann::json;
constexpr const char* reference = "../refs3/optimizers.json";

/// The numbers of a list, or of a list of rows.
Tensor numbers(const Json& list) {
  std::vector<double> all;
  for (const Json& item : list)
    for (const Json& number : item.is_array() ? Json(item) : Json::array({item})) all.push_back(number.get<double>());
  return at::tensor(all, at::TensorOptions().dtype(at::kDouble));
}

/// The options of a case in brume's words.
std::string options_of(const std::string& id, const Json& o) {
  const std::string name = id.substr(0, id.find('/'));
  std::string keys = name.starts_with("schedule_free") ? "type: schedule_free, base: " + name.substr(14) : "type: " + name;
  const auto copy = [&](const char* theirs, const char* ours) {
    if (o.contains(theirs) && !o[theirs].is_null()) keys += fmt::format(", {}: {}", ours, o[theirs].dump());
  };
  for (const char* key : {"lr", "weight_decay", "d0", "growth_rate", "safeguard_warmup", "scale_parameter", "relative_step", "warmup_init"})
    copy(key, key);
  if (o.contains("betas")) keys += fmt::format(", beta1: {}, beta2: {}", o["betas"][0].dump(), o["betas"][1].dump());
  copy("use_bias_correction", "bias_correction");
  copy("decoupled_weight_decay", "decay_per_step");
  copy("warmup_steps", "warmup");
  copy("momentum", name == "muon" ? "momentum" : "beta1");
  return "{" + keys + ", clip: 0}";
}

class PublishedOptimizer : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(reference);
    file_ = ref_json(reference);
  }
  const Json& track() const {
    for (const Json& one : file_["optimizers"])
      if (one["id"] == GetParam()) return one;
    throw std::logic_error("no track " + GetParam());
  }
  Json file_;
};

TEST_P(PublishedOptimizer, EveryStep) {
  const Json& one = track();
  const std::map<std::string, double> offsets{{"W", 0}, {"b", 1}, {"K", 2}};
  std::vector<Weight> weights;
  std::vector<Tensor> index;
  for (const std::string name : one["params"]) {
    const std::vector<int64_t> shape = file_["meta"]["shapes"][name];
    int64_t count = 1;
    for (const int64_t n : shape) count *= n;
    index.push_back(at::arange(count, at::TensorOptions().dtype(at::kDouble)).view(shape));
    weights.push_back({name, (index.back() * 0.7 + offsets.at(name)).sin().set_requires_grad(true)});
  }
  const auto optimizer = make<Optimizer>(options_of(GetParam(), one["options"]), {.weights = weights, .steps = 100});
  for (const Json& step : one["steps"]) {
    const double k = step["step"];
    for (size_t i = 0; i < weights.size(); ++i) {
      const Tensor &j = index[i], w = weights[i].tensor.detach();
      weights[i].tensor.mutable_grad() = ((j * 0.9).sin() * 0.5 + 1) * (w - (j * 1.1).cos() * 0.5) + (j * 1.3 + 0.7 * k).sin() * 0.1;
    }
    optimizer->update(int64_t(k));
    const std::vector<Tensor> evaluated = optimizer->evaluated();
    for (size_t i = 0; i < weights.size(); ++i) {
      const Tensor w = weights[i].tensor.detach();
      EXPECT_LT((w.flatten() - numbers(step[weights[i].name])).abs().max().item<double>(), 1e-9) << weights[i].name << " after step " << k;
      ASSERT_EQ(step.contains("eval"), !evaluated.empty());
      if (!evaluated.empty()) {
        EXPECT_LT((evaluated[i].flatten() - numbers(step["eval"][weights[i].name])).abs().max().item<double>(), 1e-9) << k;
      }
    }
    if (step.contains("info")) {
      EXPECT_NEAR(optimizer->figures().front().second, double(step["info"]["d"]), 1e-12) << k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tracks, PublishedOptimizer,
                         testing::Values("lion", "lion/decoupled", "prodigy", "prodigy/options", "muon", "schedule_free_adamw",
                                         "schedule_free_sgd", "schedule_free_radam", "adafactor/fixed", "adafactor/relative"),
                         [](const auto& info) {
                           std::string label = info.param;
                           std::replace(label.begin(), label.end(), '/', '_');
                           return label;
                         });

TEST(OptimizerTracks, MuonsMatrixIsNearlyOrthogonal) {
  BRUME_NEED_REF(reference);
  for (const Json& one : ref_json(reference)["optimizers"]) {
    if (!std::string(one["id"]).starts_with("newton_schulz")) continue;
    const Tensor input = numbers(one["input"]).view({4, 6});
    for (const int iterations : {3, 5}) {
      Tensor w = at::zeros({4, 6}, at::TensorOptions().dtype(at::kDouble));
      const auto optimizer =
          make<Optimizer>(fmt::format("{{type: muon, lr: 1, momentum: 0, nesterov: false, clip: 0, iterations: {}}}", iterations),
                          {.weights = {{"w", w}}, .steps = 1});
      w.mutable_grad() = input;
      optimizer->update(0);
      const Tensor expected = numbers(one[fmt::format("steps{}", iterations)]).view({4, 6});
      EXPECT_LT((w + expected).abs().max().item<double>(), 1e-9) << iterations;
    }
  }
}

/// PyTorch's SGD with Nesterov's momentum, by hand.
TEST(OptimizerTracks, GradientDescentByHand) {
  for (const bool nesterov : {false, true}) {
    Tensor w = at::tensor(std::vector<double>{1, -2});
    const auto optimizer =
        make<Optimizer>(fmt::format("{{type: sgd, lr: 0.1, momentum: 0.5, nesterov: {}, weight_decay: 0.1, clip: 0}}", nesterov),
                        {.weights = {{"w", w}}, .steps = 9});
    double x[2] = {1, -2}, sum[2] = {0, 0};
    for (int64_t step = 0; step < 4; ++step) {
      w.mutable_grad() = at::tensor(std::vector<double>{0.3, double(step)});
      optimizer->update(step);
      for (int i = 0; i < 2; ++i) {
        const double g = (i == 0 ? 0.3 : double(step)) + 0.1 * x[i];
        sum[i] = 0.5 * sum[i] + g;
        x[i] -= 0.1 * (nesterov ? g + 0.5 * sum[i] : sum[i]);
        EXPECT_NEAR(w[i].item<double>(), x[i], 1e-14) << step;
      }
    }
  }
}

}  // namespace
}  // namespace brume::test
