// Every network: shapes, starting as zero, image i the same bits whatever the batch and the thread, dropout only on request,
// and gradients everywhere.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>

#include <cmath>
#include <functional>
#include <set>
#include <thread>

#include "brume/core/network.h"
#include "brume/core/parameterization.h"
#include "brume/core/rows.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr int64_t classes = 6;
const Network::Context context{.input = {3, 16, 16}, .out_channels = 3, .classes = classes, .seed = 5};

Tensor normal(at::IntArrayRef shape, uint64_t seed, at::ScalarType type = at::kFloat) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat)).to(type);
}

class NetworkContract : public testing::TestWithParam<Specimen> {
 protected:
  /// With spatial transformers, or if they say what is done with tokens, the network receives tokens and an image.
  static bool conditioned() {
    return GetParam().yaml.find("transformer") != std::string::npos || GetParam().yaml.find("tokens:") != std::string::npos ||
           GetParam().yaml.find("depth: 2, single_depth") != std::string::npos;
  }
  static std::shared_ptr<Network> fresh(uint64_t seed = 5, const std::string& more = "") {
    Network::Context c = context;
    c.seed = seed;
    if (conditioned()) c.context_width = 10, c.image_channels = 2;
    if (GetParam().name == "mixture") c.classes = 0;  // what is beyond its own is of any of them
    c.noise = make<NoiseSchedule>("cosine"), c.parameterization = make<Parameterization>("x0");
    return make<Network>(GetParam().yaml, c, more);
  }
  /// A closed form, like the exact denoiser of Gaussian data.
  static bool weightless() { return fresh()->weights().empty(); }
  /// With random weights everywhere: what starts as zero would hide mistakes.
  static std::shared_ptr<Network> awake(const std::string& more = "") {
    const auto network = fresh(5, more);
    scatter(*network);
    return network;
  }
  static void scatter(const Network& network) {
    const at::NoGradGuard no_grad;
    uint64_t seed = 100;
    for (Weight& w : network.weights())
      if (w.trainable) w.tensor.add_(normal(w.tensor.sizes(), ++seed) * 0.05);
  }
  static Tensor images(int64_t batch, at::ScalarType type = at::kFloat) { return normal({batch, 3, 16, 16}, 21, type); }
  static Tensor levels(int64_t batch) { return at::arange(batch, at::kFloat) * 37 + 3; }
  static Condition condition(int64_t batch) {
    Condition c;
    c.classes = at::arange(batch, at::kLong).remainder(classes);
    if (!conditioned()) return c;
    c.context = normal({batch, 7, 10}, 31);
    c.context_mask = (at::arange(7).unsqueeze(0) <= at::arange(batch).remainder(9).unsqueeze(1)).to(at::kFloat);
    c.image = normal({batch, 2, 16, 16}, 32);
    return c;
  }
  static Tensor run(const Network& network, int64_t batch, at::ScalarType type = at::kFloat, at::Generator* dropout = nullptr) {
    return network.forward(images(batch, type), levels(batch), condition(batch), dropout);
  }
};

TEST_P(NetworkContract, ShapeAndTypeOfItsOutput) {
  const at::NoGradGuard no_grad;
  const auto network = awake();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const int64_t batch : {1, 3, 7}) {
      const Tensor y = run(*network, batch, type);
      EXPECT_EQ(y.sizes(), at::IntArrayRef({batch, 3, 16, 16}));
      EXPECT_EQ(y.scalar_type(), type);
      EXPECT_TRUE(at::isfinite(y).all().item<bool>());
      EXPECT_GT(y.abs().max().item<float>(), 0);
    }
}

TEST_P(NetworkContract, TheWantedOutputChannels) {
  if (weightless()) GTEST_SKIP() << "it has no weights";
  const at::NoGradGuard no_grad;
  Network::Context c = context;
  c.out_channels = 6, c.input = {1, 16, 32}, c.classes = 0;
  const auto network = make<Network>(GetParam().yaml, c);
  EXPECT_EQ(network->forward(normal({2, 1, 16, 32}, 1), levels(2), {}, nullptr).sizes(), at::IntArrayRef({2, 6, 16, 32}));
}

TEST_P(NetworkContract, StartsAsZero) {
  if (weightless()) GTEST_SKIP() << "it has no weights";
  if (GetParam().yaml.find("zero_init: false") != std::string::npos) GTEST_SKIP() << "told not to";
  const at::NoGradGuard no_grad;
  EXPECT_EQ(run(*fresh(), 2).abs().max().item<float>(), 0);
}

TEST_P(NetworkContract, ImageIDoesNotDependOnItsBatch) {
  const at::NoGradGuard no_grad;
  const auto network = awake();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Tensor all = run(*network, 16, type);
    for (const int64_t batch : {1, 2, 3, 5}) {
      const Tensor x = images(16, type);
      for (int64_t first = 0; first + batch <= 16; first += batch) {
        const Tensor part = network->forward(x.narrow(0, first, batch).clone(), levels(16).narrow(0, first, batch).clone(),
                                             condition(16).slice(first, batch), nullptr);
        ASSERT_TRUE(at::equal(part, all.narrow(0, first, batch)))
            << "images " << first << " to " << first + batch - 1 << ", " << toString(type);
      }
    }
  }
}

TEST_P(NetworkContract, EightThreadsAtOnce) {
  const auto network = awake();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto one = [&](size_t) {
      const at::NoGradGuard no_grad;
      return run(*network, 3, type);
    };
    const Tensor serial = one(0);
    std::vector<Tensor> parallel(8);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < 8; ++i) threads.emplace_back([&, i] { parallel[i] = one(i); });
    for (std::thread& t : threads) t.join();
    for (size_t i = 0; i < 8; ++i) EXPECT_TRUE(at::equal(parallel[i], serial)) << i << ", " << toString(type);
  }
}

TEST_P(NetworkContract, TakesItsNoiseLevelAndItsClass) {
  if (weightless()) GTEST_SKIP() << "it has no weights";
  const at::NoGradGuard no_grad;
  const auto network = awake();
  const Tensor x = normal({1, 3, 16, 16}, 3).expand({2, 3, 16, 16}).contiguous();
  Condition same_class = condition(2), other_class = condition(2);
  same_class.classes.fill_(2);
  for (Condition* c : {&same_class, &other_class}) {
    if (!conditioned()) break;
    c->context[1].copy_(c->context[0]);
    c->context_mask[1].copy_(c->context_mask[0]);
    c->image[1].copy_(c->image[0]);
  }
  const Tensor y = network->forward(x, levels(2), same_class, nullptr);
  EXPECT_FALSE(at::equal(y[0], y[1])) << "the noise level is not used";
  const Tensor z = network->forward(x, at::full({2}, 5.0f), other_class, nullptr);
  EXPECT_FALSE(at::equal(z[0], z[1])) << "the class is not used";
}

/// A part of a condition: how a network is made for it, and its rows for two images, different for each k.
struct ConditionPart {
  std::string name;
  std::function<void(Network::Context&)> ask;
  std::function<void(Condition&, int64_t k)> give;
};
const std::vector<ConditionPart> condition_parts{
    {"classes", [](auto& c) { c.classes = 5; }, [](Condition& c, int64_t k) { c.classes = at::full({2}, 1 + k, at::kLong); }},
    {"tokens", [](auto& c) { c.context_width = 10; },
     [](Condition& c, int64_t k) {
       c.context = normal({2, 7, 10}, 40 + k), c.context_mask = at::ones({2, 7});
     }},
    {"image", [](auto& c) { c.image_channels = 2; },
     [](Condition& c, int64_t k) {
       c.image = normal({2, 2, 16, 16}, 50 + k);
     }},
    {"vector", [](auto& c) { c.vector_width = 10; },
     [](Condition& c, int64_t k) {
       c.vector = normal({2, 10}, 60 + k);
     }},
    {"sizes", [](auto& c) { c.size_ids = 6; },
     [](Condition& c, int64_t k) {
       c.sizes = at::full({2, 6}, 8.0f + k);
     }},
    {"guidance", [](auto& c) { c.guidance = true; }, [](Condition& c, int64_t k) { c.guidance = at::full({2}, 2.0f + 0.7f * k); }}};

/// Calls f with each part and a network that takes it.
void for_condition_parts(const std::string& yaml, const std::function<void(const ConditionPart&, const Network&)>& f) {
  for (const ConditionPart& part : condition_parts) {
    Network::Context c = context;
    c.classes = 0, c.noise = make<NoiseSchedule>("cosine"), c.parameterization = make<Parameterization>("x0");
    part.ask(c);
    std::shared_ptr<Network> network;
    try {
      network = make<Network>(yaml, c);
    } catch (const ConfigError&) {
      continue;
    }
    SCOPED_TRACE(part.name);
    f(part, *network);
  }
}

TEST_P(NetworkContract, EachPartOfAConditionIsRefusedOrChangesTheOutput) {
  const at::NoGradGuard no_grad;
  for_condition_parts(GetParam().yaml, [](const ConditionPart& part, const Network& network) {
    if (GetParam().name == "gaussian" && part.name == "classes") return;  // all of them are the same
    scatter(network);
    Condition one, other;
    part.give(one, 0), part.give(other, 1);
    EXPECT_FALSE(at::equal(network.forward(images(2), levels(2), one, nullptr), network.forward(images(2), levels(2), other, nullptr)));
  });
}

TEST_P(NetworkContract, ImageIDoesNotDependOnItsBatchByAnyPartOfACondition) {
  const at::NoGradGuard no_grad;
  for_condition_parts(GetParam().yaml, [](const ConditionPart& part, const Network& network) {
    scatter(network);
    Condition all;
    part.give(all, 0);
    for (int64_t k = 1; k < 4; ++k) {
      Condition more;
      part.give(more, k);
      all = concat(all, more);
    }
    const Tensor together = network.forward(images(8), levels(8), all, nullptr);
    for (const int64_t count : {1, 3})
      for (int64_t first = 0; first + count <= 8; first += count)
        EXPECT_TRUE(at::equal(network.forward(images(8).narrow(0, first, count).clone(), levels(8).narrow(0, first, count).clone(),
                                              all.slice(first, count), nullptr),
                              together.narrow(0, first, count)))
            << "images " << first << " to " << first + count - 1;
  });
}

TEST_P(NetworkContract, DropoutOnlyWithAGenerator) {
  const std::string text = describe(builtins(), "network", GetParam().name);
  if (text.find("\n  dropout ") == std::string::npos) GTEST_SKIP() << "it has none";
  const auto network = awake("dropout: 0.5");
  const at::NoGradGuard no_grad;
  const auto draw = [&](uint64_t seed) {
    at::Generator random = at::detail::createCPUGenerator(seed);
    return run(*network, 2, at::kFloat, &random);
  };
  EXPECT_TRUE(at::equal(run(*network, 2), run(*network, 2)));
  EXPECT_TRUE(at::equal(draw(1), draw(1)));
  EXPECT_FALSE(at::equal(draw(1), draw(2)));
  EXPECT_FALSE(at::equal(draw(1), run(*network, 2)));
}

TEST_P(NetworkContract, GradientsReachEveryTrainableWeight) {
  if (weightless()) GTEST_SKIP() << "it has no weights";
  const auto network = awake();
  for (Weight& w : network->weights())
    if (w.trainable) w.tensor.set_requires_grad(true);
  Tensor sum = (run(*network, 6) * normal({6, 3, 16, 16}, 77)).sum();
  if (const Tensor learned = network->log_variance(levels(6)); learned.defined()) sum = sum + learned.sum();
  sum.backward();
  for (const Weight& w : network->weights()) {
    if (!w.trainable) continue;
    ASSERT_TRUE(w.tensor.grad().defined()) << w.name;
    EXPECT_TRUE(at::isfinite(w.tensor.grad()).all().item<bool>()) << w.name;
    EXPECT_GT(w.tensor.grad().abs().max().item<float>(), 0) << w.name;
  }
}

TEST_P(NetworkContract, CheckpointingKeepsTheBitsOfGradients) {
  if (weightless()) GTEST_SKIP() << "it has no weights";
  const std::string text = describe(builtins(), "network", GetParam().name);
  if (text.find("\n  checkpoint ") == std::string::npos) GTEST_SKIP() << "it has no option checkpoint";
  const std::string dropout = text.find("\n  dropout ") == std::string::npos ? "" : "dropout: 0.3, ";
  const auto gradients = [&](const std::string& checkpoint, at::ScalarType type) {
    const auto network = awake(dropout + "checkpoint: " + checkpoint);
    const BatchPartScope part({2, 4, 8});
    at::Generator random = at::detail::createCPUGenerator(3);
    const Tensor x = images(4, type).set_requires_grad(true);
    for (Weight& w : network->weights())
      if (w.trainable) w.tensor.set_requires_grad(true);
    const Tensor y = network->forward(x, levels(4), condition(4), &random);
    (y.to(at::kFloat) * normal({4, 3, 16, 16}, 77)).sum().backward();
    std::vector<std::pair<std::string, Tensor>> all{{"output", y.detach()}, {"input", x.grad()}};
    for (const Weight& w : network->weights()) all.emplace_back(w.name, w.tensor.grad());
    return all;
  };
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto kept = gradients("false", type), again = gradients("true", type);
    ASSERT_EQ(kept.size(), again.size());
    for (size_t i = 0; i < kept.size(); ++i) {
      ASSERT_EQ(kept[i].second.defined(), again[i].second.defined()) << kept[i].first;
      if (kept[i].second.defined()) {
        EXPECT_TRUE(at::equal(kept[i].second, again[i].second)) << kept[i].first << ", " << toString(type);
      }
    }
  }
}

TEST_P(NetworkContract, EvaluationIsTheSameWithAndWithoutGradients) {
  const auto network = awake();
  const Tensor recorded = run(*network, 4).detach();
  const at::NoGradGuard no_grad;
  EXPECT_LT((run(*network, 4) - recorded).abs().max().item<float>(), 1e-4f * recorded.abs().max().item<float>());
}

TEST_P(NetworkContract, NamesAreUniqueAndStable) {
  if (weightless()) GTEST_SKIP() << "it has no weights";
  const auto network = fresh(), again = fresh();
  std::set<std::string> names;
  for (const Weight& w : network->weights()) EXPECT_TRUE(names.insert(w.name).second) << w.name << " is there twice";
  EXPECT_FALSE(names.empty());
  const auto a = network->weights(), b = again->weights();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].name, b[i].name);
}

TEST_P(NetworkContract, WeightsAreOfTheSeedAlone) {
  if (weightless()) GTEST_SKIP() << "it has no weights";
  const auto differing = [](const Network& a, const Network& b) {
    int64_t count = 0;
    const auto x = a.weights(), y = b.weights();
    for (size_t i = 0; i < x.size(); ++i) count += !at::equal(x[i].tensor, y[i].tensor);
    return count;
  };
  EXPECT_EQ(differing(*fresh(5), *fresh(5)), 0);
  EXPECT_GT(differing(*fresh(5), *fresh(6)), 0);
}

TEST_P(NetworkContract, WeightsAreTheOnesItComputesWith) {
  if (weightless()) GTEST_SKIP() << "it has no weights";
  const at::NoGradGuard no_grad;
  const auto a = awake(), b = fresh(9);
  EXPECT_FALSE(at::equal(run(*a, 2), run(*b, 2)));
  const auto from = a->weights(), to = b->weights();
  for (size_t i = 0; i < from.size(); ++i) Tensor(to[i].tensor).copy_(from[i].tensor);
  EXPECT_TRUE(at::equal(run(*a, 2), run(*b, 2)));
}

INSTANTIATE_TEST_SUITE_P(
    Registry, NetworkContract,
    testing::ValuesIn(specimens(
        "network",
        {"{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [16, 8], heads: 4, resampling: residual, "
         "attention_order: new}",
         "{type: unet, channels: 16, groups: 8, multipliers: [1, 3], blocks: 2, resampling: pool, scale_shift: false, middle_attention: "
         "false, "
         "noise_embedding: {type: fourier, scale: 0.1}}",
         "{type: unet, channels: 24, groups: 12, multipliers: [2], blocks: 1, attention_resolutions: [16], head_channels: 12, zero_init: "
         "false}",
         "{type: unet, channels: 12, groups: 4, multipliers: [1], blocks: 1, guidance_channels: 10}",
         "{type: mixture, means: [-1, -0.5, 0, 0.5, 1]}",
         "{type: unet, channels: 16, groups: 8, multipliers: [1, 2], blocks: 1, class_embedding: sinusoidal}",
         "{type: song_unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], encoder: residual, embedding_type: "
         "fourier, noise_multiplier: 2, resample_filter: [1, 3, 3, 1], null_is_zero: true}",
         "{type: song_unet, channels: 16, multipliers: [1, 1, 2], blocks: 1, encoder: skip, decoder: skip, resample_filter: [1, 3, 3, 1], "
         "noise_label: ve}",
         "{type: dhariwal_unet, channels: 32, multipliers: [1, 2, 4], blocks: 1, attention_resolutions: [8]}",
         "{type: unet, channels: 24, groups: 8, multipliers: [1, 2], blocks: 1, attention_resolutions: [16, 8], heads: 3, "
         "transformer: {depth: [1, 2], projection: linear, dropout: 0.1}}",
         "{type: edm2_unet, channels: 8, multipliers: [1, 2, 2], blocks: 2, attention_resolutions: [], head_channels: 4, dropout: 0.1, "
         "label_balance: 0.3, noise_channels: 12, embedding_channels: 20, clip: 0}",
         "{type: mmdit, width: 32, depth: 2, single_depth: 2, heads: 2, patch: 4, qk_norm: true, rotary_axes: [4, 6, 6]}",
         "{type: mmdit, width: 32, depth: 2, single_depth: 0, heads: 4, patch: 4, position_size: 9}",
         "{type: mmdit, width: 32, depth: 3, heads: 2, patch: 8, qk_norm: true, dual_blocks: [0, 1]}",
         "{type: dit, width: 48, depth: 3, heads: 3, patch: 4, positions: learned, qk_norm: true, long_skips: true, tokens: in_context}",
         "{type: dit, width: 32, depth: 2, heads: 2, patch: 8, positions: none, rotary: true, norm: rms, activation: swiglu, qk_norm: "
         "true}",
         "{type: dit, width: 48, depth: 2, heads: 2, patch: 4, patch_height: 2, slices: 4, patch_slices: 2, rotary: true}",
         "{type: dit, width: 32, depth: 2, heads: 4, modulation: single, tokens: cross_attention, rotary: true, "
         "noise_embedding: {type: fourier, scale: 0.1}}",
         "{type: mlp, width: 32, blocks: 2, noise_width: 16, fourier: 24, fourier_scale: 0.2}"})),
    [](const auto& info) { return info.param.name + "_" + std::to_string(info.index); });

}  // namespace
}  // namespace brume::test
