// Checkpointed blocks: nothing is kept between forward and backward pass, and the gradients have the bits of those without, of first and
// second order. tests/contracts/network_test.cpp has the law for each network.
#include "brume/nn/blocks/recompute.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "brume/core/autoencoder.h"
#include "brume/core/classifier.h"
#include "brume/nn/blocks/text_encoder.h"
#include "brume/nn/ops/ops.h"
#include "support/registry.h"

namespace brume::test {
namespace {

at::Generator generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }
Tensor normal(at::IntArrayRef shape, uint64_t seed) { return at::randn(shape, generator(seed), at::TensorOptions().dtype(at::kFloat)); }

void expect_equal(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].defined(), b[i].defined()) << i;
    if (a[i].defined()) {
      EXPECT_TRUE(at::equal(a[i], b[i])) << "gradient " << i;
    }
  }
}

/// Counts the memory that blocks keep.
struct Kept {
  int64_t now = 0, most = 0, runs = 0;
  Tensor copy(const Tensor& x) {
    auto* memory = new float[size_t(x.numel())];
    most = std::max(most, ++now);
    const Tensor own = at::from_blob(
        memory, x.sizes(),
        [this, memory](void*) {
          --now;
          delete[] memory;
        },
        at::TensorOptions().dtype(at::kFloat));
    return own.copy_(x.detach());
  }
};

/// tanh(x) w k, with k a copy of x that the product keeps.
auto block(const Tensor& x, const Tensor& w, Kept& kept) {
  return [x, w, &kept](at::Generator*) {
    ++kept.runs;
    return (x.tanh() * w) * kept.copy(x);
  };
}

TEST(Recomputed, KeepsNothingBetweenThePasses) {
  for (const bool checkpoint : {false, true}) {
    Kept kept;
    const Tensor w = normal({4, 4}, 1).set_requires_grad(true);
    Tensor x = normal({4, 4}, 2);
    for (int i = 0; i < 5; ++i) x = nn::recomputed(checkpoint, nullptr, block(x, w, kept));
    EXPECT_EQ(kept.now, checkpoint ? 0 : 5);
    kept.most = 0;
    x.sum().backward();
    EXPECT_EQ(kept.now, 0);
    EXPECT_EQ(kept.runs, checkpoint ? 10 : 5);
    if (checkpoint) {
      EXPECT_EQ(kept.most, 1) << "one block at a time";
    }
  }
}

TEST(Recomputed, GradientsOfFirstAndSecondOrderHaveTheSameBits) {
  std::vector<Tensor> results[2];
  for (const bool checkpoint : {false, true}) {
    const Tensor w = normal({4, 4}, 1).set_requires_grad(true), x = normal({4, 4}, 2).set_requires_grad(true);
    Tensor h = x;
    for (int i = 0; i < 3; ++i)
      h = nn::recomputed(checkpoint, nullptr, [=](at::Generator*) { return nn::silu(h) * w + at::matmul(h, w).tanh() + h; });
    const auto first = torch::autograd::grad({h.pow(2).sum()}, {x, w}, {}, true, true);
    const auto again = torch::autograd::grad({h.pow(2).sum()}, {x, w}, {}, true, false);
    const auto second = torch::autograd::grad({first[0].pow(2).sum() + first[1].pow(3).sum()}, {x, w});
    auto& all = results[checkpoint];
    all = {first[0].detach(), first[1].detach(), again[0], again[1], second[0], second[1]};
  }
  expect_equal(results[0], results[1]);
}

TEST(Recomputed, DrawsTheSameNumbersAndLeavesTheGeneratorAsItWas) {
  std::vector<Tensor> results[2];
  for (const bool checkpoint : {false, true}) {
    at::Generator random = generator(7);
    const Tensor w = normal({6, 8}, 1).set_requires_grad(true);
    Tensor h = normal({6, 8}, 2);
    for (int i = 0; i < 3; ++i)
      h = nn::recomputed(checkpoint, &random, [=](at::Generator* r) { return nn::dropout(nn::silu(h * w), 0.4, r) + h; });
    const Tensor next = at::randn({3}, random, at::TensorOptions().dtype(at::kFloat));
    h.sum().backward();
    results[checkpoint] = {h.detach(), w.grad(), next, at::randn({3}, random, at::TensorOptions().dtype(at::kFloat))};
  }
  expect_equal(results[0], results[1]);
}

TEST(Recomputed, GradientsAccumulate) {
  Kept kept;
  const Tensor w = normal({4, 4}, 1).set_requires_grad(true), x = normal({4, 4}, 2);
  for (int i = 0; i < 2; ++i) nn::recomputed(true, nullptr, block(x, w, kept)).sum().backward();
  const Tensor twice = w.grad().clone();
  w.mutable_grad().reset();
  block(x, w, kept)(nullptr).sum().backward();
  EXPECT_TRUE(at::equal(twice, w.grad() + w.grad()));
}

TEST(Recomputed, RunsOnceWithoutGradients) {
  Kept kept;
  const at::NoGradGuard no_grad;
  nn::recomputed(true, nullptr, block(normal({4, 4}, 2), normal({4, 4}, 1), kept));
  EXPECT_EQ(kept.runs, 1);
}

TEST(Recomputed, ABlockInABlockIsPartOfIt) {
  Kept kept;
  const Tensor w = normal({4, 4}, 1).set_requires_grad(true), x = normal({4, 4}, 2);
  const Tensor y = nn::recomputed(true, nullptr, [=, &kept](at::Generator*) { return nn::recomputed(true, nullptr, block(x, w, kept)); });
  y.sum().backward();
  EXPECT_EQ(kept.runs, 2);
}

TEST(Recomputed, RefusesABlockThatComputesSomethingElse) {
  const Tensor w = normal({4}, 1).set_requires_grad(true);
  int runs = 0;
  const Tensor y = nn::recomputed(true, nullptr, [w, &runs](at::Generator*) { return runs++ == 0 ? w.exp() : w.exp().tanh(); });
  try {
    y.sum().backward();
    FAIL();
  } catch (const std::exception& e) {
    EXPECT_NE(std::string(e.what()).find("a block kept 1 value for its backward pass, and 2 when it ran again"), std::string::npos)
        << e.what();
  }
  EXPECT_TRUE(nn::Recomputation::possible());
}

// ---- what is no network

std::vector<Tensor> gradients(const std::vector<Weight>& weights, const std::function<Tensor()>& loss) {
  for (const Weight& w : weights) Tensor(w.tensor).set_requires_grad(w.trainable);
  loss().backward();
  std::vector<Tensor> all;
  for (const Weight& w : weights) all.push_back(w.tensor.grad());
  return all;
}

TEST(Checkpointed, FirstStages) {
  for (const std::string type : {"kl", "vq"}) {
    std::vector<Tensor> results[2];
    for (const bool checkpoint : {false, true}) {
      const auto stage = make<Autoencoder>(
          "{type: " + type + ", channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: [4], dropout: 0.2}",
          {.image = {3, 8, 8}, .seed = 2}, std::string("checkpoint: ") + (checkpoint ? "true" : "false"));
      at::Generator random = generator(4);
      results[checkpoint] = gradients(stage->weights(), [&] {
        const auto r = stage->reconstruct(normal({3, 3, 8, 8}, 1), random);
        return r.images.pow(2).sum() + r.penalty;
      });
    }
    expect_equal(results[0], results[1]);
  }
}

TEST(Checkpointed, Classifiers) {
  std::vector<Tensor> results[2];
  for (const bool checkpoint : {false, true}) {
    const auto classifier = make<Classifier>(
        "{type: unet_encoder, channels: 16, groups: 8, multipliers: [1, 2], attention_resolutions: [4], dropout: 0.3, zero_init: false}",
        {{3, 8, 8}, 4, 1}, std::string("checkpoint: ") + (checkpoint ? "true" : "false"));
    at::Generator random = generator(4);
    results[checkpoint] = gradients(classifier->weights(), [&] {
      return classifier->forward(normal({3, 3, 8, 8}, 1), at::full({3}, 2.0f), &random).logits.pow(2).sum();
    });
  }
  expect_equal(results[0], results[1]);
}

TEST(Checkpointed, TextEncoders) {
  std::vector<Tensor> results[2];
  for (const bool checkpoint : {false, true}) {
    const nn::Builder build(3);
    const nn::TextEncoder encoder(build, {20, 6, 16, 3, 2, 32, true, checkpoint});
    const Tensor ids = at::arange(12, at::kLong).view({2, 6});
    results[checkpoint] = gradients(build.weights(), [&] {
      const nn::EncodedText text = encoder(ids, {.keys = {}, .causal = true}, at::kFloat, {.skip = 1, .whole = true});
      return text.tokens.pow(2).sum() + text.last.pow(3).sum();
    });
  }
  expect_equal(results[0], results[1]);
}

}  // namespace
}  // namespace brume::test
