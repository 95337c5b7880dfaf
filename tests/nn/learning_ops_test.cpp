// nn::dropout: the share that it drops, what it leaves expected, one choice of places for every type and layout, and a gradient by
// the same choice. Softmax of whole rows against its definition.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <vector>

#include "brume/nn/ops/batched_matmul.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/softmax.h"

namespace brume::test {
namespace {

using at::Tensor;

Tensor dropped(const Tensor& x, double p, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return nn::dropout(x, p, &random);
}

TEST(Concat, HasAGradientOfItsGradient) {
  const auto of_gradient = [](bool ours) {
    const Tensor a = at::linspace(-1, 1, 2 * 4 * 9).view({2, 4, 3, 3}).requires_grad_(true);
    const Tensor b = at::linspace(2, 3, 2 * 2 * 9).view({2, 2, 3, 3}).requires_grad_(true);
    const Tensor joined = ours ? nn::concat(a, b) : at::cat({a, b}, 1);
    const auto first = torch::autograd::grad({joined.pow(3).sum()}, {a, b}, {}, true, /*create_graph=*/true);
    const auto second = torch::autograd::grad({first[0].square().sum() + first[1].square().sum()}, {a, b});
    return at::cat({second[0].flatten(), second[1].flatten()});
  };
  EXPECT_TRUE(at::allclose(of_gradient(true), of_gradient(false)));
}

TEST(Dropout, DropsItsShareAndKeepsTheMean) {
  const Tensor x = at::ones({1000, 1000});
  for (const double p : {0.1, 0.3, 0.9}) {
    const Tensor y = dropped(x, p, 1), kept = (y != 0).to(at::kDouble);
    const double spread = std::sqrt(p * (1 - p) / 1e6);  // of the share of a million values
    EXPECT_NEAR(kept.mean().item<double>(), 1 - p, 4 * spread) << p;
    EXPECT_NEAR(kept.mean(0).std().item<double>(), std::sqrt(p * (1 - p) / 1000), 0.1 * std::sqrt(p * (1 - p) / 1000)) << p;
    EXPECT_EQ(y.max().item<float>(), 1 / (1 - float(p))) << p;
    // Neighbours know nothing of each other.
    const Tensor a = kept.narrow(1, 0, 999) - (1 - p), b = kept.narrow(1, 1, 999) - (1 - p);
    EXPECT_NEAR((a * b).mean().item<double>() / (p * (1 - p)), 0, 4e-3) << p;
  }
}

TEST(Dropout, EverySeedAndCallChoosesAnew) {
  const Tensor x = at::ones({100000});
  at::Generator random = at::detail::createCPUGenerator(1);
  const Tensor first = nn::dropout(x, 0.5, &random), second = nn::dropout(x, 0.5, &random), again = dropped(x, 0.5, 1);
  EXPECT_TRUE(first.equal(again));
  for (const Tensor& other : {second, dropped(x, 0.5, 2)}) EXPECT_NEAR((first == other).to(at::kDouble).mean().item<double>(), 0.5, 0.01);
}

TEST(Dropout, IsNothingWithoutAGeneratorOrAProbability) {
  const Tensor x = at::ones({3});
  at::Generator random = at::detail::createCPUGenerator(1);
  EXPECT_TRUE(nn::dropout(x, 0.5, nullptr).is_same(x));
  EXPECT_TRUE(nn::dropout(x, 0, &random).is_same(x));
}

TEST(Dropout, TheGradientKeepsWhatTheValueKept) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble})
    for (const bool channels_last : {false, true}) {
      const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
      const Tensor x = at::ones({2, 3, 40, 5}).to(type).contiguous(format).set_requires_grad(true);
      const Tensor y = dropped(x, 0.5, 3);
      for (const auto other : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
        const Tensor d = torch::autograd::grad({y}, {x}, {at::ones_like(y).contiguous(other)}, true)[0];
        EXPECT_TRUE(d.equal(y.detach())) << toString(type);
      }
      EXPECT_TRUE(y.detach().to(at::kFloat).equal(dropped(at::ones({2, 3, 40, 5}).contiguous(format), 0.5, 3))) << toString(type);
    }
}

TEST(FromHalf, IsExactForEveryValue) {
  const Tensor bits = at::arange(-32768, 32768, at::kShort), x = bits.view(at::kHalf), wanted = x.to(at::kFloat);
  const nn::Isa before = nn::isa();
  for (const nn::Isa isa : {nn::Isa::generic, nn::Isa::avx2, nn::Isa::avx512}) {
    if (!nn::isa_supported(isa)) continue;
    nn::set_isa(isa);
    const Tensor y = nn::from_half(x, at::kFloat), number = wanted.isnan().logical_not();
    EXPECT_TRUE(y.masked_select(number).view(at::kInt).equal(wanted.masked_select(number).view(at::kInt))) << isa_name(isa);
    EXPECT_TRUE(y.isnan().equal(wanted.isnan())) << isa_name(isa);
    EXPECT_TRUE(at::nan_to_num(nn::from_half(x, at::kBFloat16)).equal(at::nan_to_num(wanted.to(at::kBFloat16)))) << isa_name(isa);
  }
  nn::set_isa(before);
}

TEST(Softmax, IsItsDefinitionAndSoIsItsGradient) {
  for (const int64_t width : {1, 15, 16, 49, 300}) {
    const Tensor s = at::randn({2, 7, width}, at::detail::createCPUGenerator(1), at::kFloat) * 8, wide = s.to(at::kDouble);
    const Tensor dp = at::randn({2, 7, width}, at::detail::createCPUGenerator(2), at::kFloat);
    const Tensor p = at::softmax(wide, -1), ds = 0.5 * p * (dp - (p * dp).sum(-1, true));
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const double allowed = type == at::kBFloat16 ? 2e-2 : 1e-6;
      const Tensor own = nn::softmax(s, type), gradient = nn::softmax_gradient(own, dp, 0.5);
      EXPECT_EQ(own.scalar_type(), type);
      EXPECT_LE((own.to(at::kDouble) - p).abs().max().item<double>(), allowed) << width;
      EXPECT_LE((gradient.to(at::kDouble) - ds).abs().max().item<double>(), allowed) << width;
    }
  }
}

TEST(Softmax, TellsOfScoresThatAreNoNumbers) {
  const Tensor s = at::zeros({3, 20});
  s[1][17] = NAN;
  const Tensor p = nn::softmax(s, at::kFloat);
  EXPECT_TRUE(p[1].isnan().any().item<bool>());
  EXPECT_FALSE(p[0].isnan().any().item<bool>() || p[2].isnan().any().item<bool>());
}

TEST(Products, AreTheirDefinitionInAnyOrderInMemory) {
  const auto normal = [](std::vector<int64_t> sizes, uint64_t seed) {
    return at::randn(sizes, at::detail::createCPUGenerator(seed), at::kFloat);
  };
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble})
    for (const bool turned : {false, true}) {
      const Tensor a = turned ? normal({3, 9, 5}, 1).transpose(1, 2) : normal({3, 5, 9}, 1), b = normal({3, 9, 11}, 2);
      const Tensor x = a.to(type), y = b.to(type), wanted = 0.25 * at::bmm(x.to(at::kDouble), y.to(at::kDouble));
      const Tensor out = nn::batched_matmul(x, y, type == at::kDouble ? at::kDouble : at::kFloat, 0.25);
      EXPECT_LE((out.to(at::kDouble) - wanted).abs().max().item<double>(), 1e-6) << toString(type);
      EXPECT_EQ(nn::batched_matmul(x, y, at::kBFloat16).scalar_type(), at::kBFloat16);
    }
}

}  // namespace
}  // namespace brume::test
