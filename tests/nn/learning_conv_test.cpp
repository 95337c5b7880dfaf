// Convolutions that learn: results and gradients against LibTorch's in float64, for every shape of layer and however weights lie.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/training_conv.h"

namespace brume::test {
namespace {

using at::Tensor;

struct Layer {
  int64_t in, out, kernel, stride, padding;
  bool bias;
  std::string text() const { return fmt::format("{} to {}, {}x{}, stride {}, padding {}", in, out, kernel, kernel, stride, padding); }
};

const std::vector<Layer> layers = {{8, 16, 3, 1, 1, true},  {3, 5, 3, 2, 1, true},    {8, 4, 3, 2, 0, true},
                                   {6, 12, 1, 1, 0, false}, {32, 32, 3, 1, 1, false}, {1, 1, 5, 1, 2, true}};

Tensor normal(std::vector<int64_t> sizes, uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(at::kDouble));
}

/// x, weight and bias, if there is one, rounded to the types they have.
std::vector<Tensor> inputs(const Layer& l, at::ScalarType x, at::ScalarType weight, bool channels_last) {
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  std::vector<Tensor> result = {normal({3, l.in, 9, 7}, 1).to(x).contiguous(at::MemoryFormat::ChannelsLast),
                                normal({l.out, l.in, l.kernel, l.kernel}, 2).to(weight).contiguous(format)};
  if (l.bias) result.push_back(normal({l.out}, 3).to(weight));
  for (Tensor& t : result) t.set_requires_grad(true);
  return result;
}

std::vector<Tensor> wide(const std::vector<Tensor>& leaves) {
  std::vector<Tensor> result;
  for (const Tensor& t : leaves) result.push_back(t.detach().to(at::kDouble).set_requires_grad(true));
  return result;
}

Tensor bias_of(const std::vector<Tensor>& leaves) { return leaves.size() > 2 ? leaves[2] : Tensor(); }
Tensor ours(const Layer& l, const std::vector<Tensor>& leaves) {
  return nn::training_conv2d(leaves[0], leaves[1], bias_of(leaves), l.stride, l.padding);
}
Tensor exact(const Layer& l, const std::vector<Tensor>& leaves) {
  return at::conv2d(leaves[0], leaves[1], bias_of(leaves), l.stride, l.padding);
}

std::vector<Tensor> gradients(const Tensor& y, const std::vector<Tensor>& leaves, const Tensor& dy, bool create = false) {
  return torch::autograd::grad({y}, leaves, {dy}, create, create, true);
}

/// The largest difference in units of the largest value.
double difference(const Tensor& a, const Tensor& b) {
  return ((a.to(at::kDouble) - b.to(at::kDouble)).abs().max() / b.to(at::kDouble).abs().max()).item<double>();
}

TEST(LearningConv, ResultsAndGradientsAreThoseOfTheDefinition) {
  for (const Layer& l : layers)
    for (const at::ScalarType x : {at::kFloat, at::kBFloat16})
      for (const at::ScalarType weight : {at::kFloat, at::kHalf})
        for (const bool channels_last : {true, false}) {
          const auto leaves = inputs(l, x, weight, channels_last), exact_leaves = wide(leaves);
          const Tensor y = ours(l, leaves), wanted = exact(l, exact_leaves);
          // bf16: 2^-9 of the result, and of the weights before they are multiplied
          const double allowed = x == at::kFloat ? 2e-6 : 1e-2;
          EXPECT_EQ(y.scalar_type(), x);
          EXPECT_LE(difference(y.detach(), wanted.detach()), allowed) << l.text();
          const Tensor dy = normal(y.sizes().vec(), 4).to(x);
          const auto d = gradients(y, leaves, dy), d_wanted = gradients(wanted, exact_leaves, dy.to(at::kDouble));
          for (size_t i = 0; i < d.size(); ++i) {
            EXPECT_EQ(d[i].scalar_type(), leaves[i].scalar_type());
            EXPECT_LE(difference(d[i], d_wanted[i]), weight == at::kHalf && i > 0 ? 1e-3 + allowed : allowed)
                << l.text() << ", input " << i;
          }
        }
}

TEST(LearningConv, SumsTheGradientOfTheWeightInFloat32) {
  const Layer l{8, 8, 3, 1, 1, true};
  const auto leaves = inputs(l, at::kBFloat16, at::kFloat, true), exact_leaves = wide(leaves);
  const Tensor y = ours(l, leaves), dy = normal(y.sizes().vec(), 4).to(at::kBFloat16);
  const auto d = gradients(y, leaves, dy), wanted = gradients(exact(l, exact_leaves), exact_leaves, dy.to(at::kDouble));
  // Neither depends on the weight, so nothing was rounded to bfloat16 on the way, where a value keeps 2e-3 of itself.
  for (const size_t i : {size_t(1), size_t(2)}) EXPECT_LE(difference(d[i], wanted[i]), 3e-6);
}

TEST(LearningConv, GradientOfTheGradientIsThatOfTheDefinition) {
  const auto second = [](const Tensor& y, const std::vector<Tensor>& leaves) {
    Tensor penalty = at::zeros({}, y.options());
    for (const Tensor& g : gradients(y, leaves, normal(y.sizes().vec(), 4).to(y.scalar_type()), true)) penalty = penalty + (g * g).sum();
    return gradients(penalty, {leaves[0], leaves[1]}, at::ones({}, y.options()));
  };
  for (const Layer& l : {layers[0], layers[3]}) {
    const auto leaves = inputs(l, at::kFloat, at::kFloat, true), exact_leaves = wide(leaves);
    const auto d = second(ours(l, leaves), leaves), wanted = second(exact(l, exact_leaves), exact_leaves);
    for (size_t i = 0; i < d.size(); ++i) EXPECT_LE(difference(d[i], wanted[i]), 1e-5) << l.text() << ", input " << i;
  }
}

TEST(LearningConv, GivesTheGradientsThatAreAskedFor) {
  const Layer& l = layers[0];
  auto leaves = inputs(l, at::kFloat, at::kFloat, true);
  const auto all = gradients(ours(l, leaves), leaves, at::ones({3, 16, 9, 7}));
  for (const size_t alone : {size_t(0), size_t(1), size_t(2)}) {
    for (size_t i = 0; i < 3; ++i) leaves[i].set_requires_grad(i == alone);
    const auto one = gradients(ours(l, leaves), {leaves[alone]}, at::ones({3, 16, 9, 7}));
    EXPECT_TRUE(one[0].equal(all[alone])) << alone;
  }
  for (Tensor& t : leaves) t.set_requires_grad(false);
  EXPECT_FALSE(ours(l, leaves).requires_grad());
}

TEST(LearningConv, TakesGradientsThatLieInAnyOrder) {
  const Layer& l = layers[0];
  const auto leaves = inputs(l, at::kFloat, at::kFloat, true);
  const Tensor dy = normal({3, 16, 9, 7}, 4).to(at::kFloat), y = ours(l, leaves);
  const auto a = gradients(y, leaves, dy);
  const auto b = gradients(ours(l, leaves), leaves, dy.contiguous(at::MemoryFormat::ChannelsLast));
  const auto c = gradients(ours(l, leaves), leaves, dy.transpose(0, 3).contiguous().transpose(0, 3));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(a[i].equal(b[i]) && a[i].equal(c[i])) << i;
}

// Few tokens stand in one row for all images, many in a row per image; either way each finds its own place again.
TEST(LearningLinear, ResultsAndGradientsAreThoseOfTheDefinition) {
  for (const auto& sizes : std::vector<std::vector<int64_t>>{{3, 6}, {3, 5, 6}, {2, 300, 6}})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      std::vector<Tensor> leaves{normal(sizes, 1).to(type), normal({8, 6}, 2).to(at::kFloat), normal({8}, 3).to(at::kFloat)};
      for (Tensor& t : leaves) t.set_requires_grad(true);
      const auto exact_leaves = wide(leaves);
      const Tensor y = nn::linear(leaves[0], leaves[1], leaves[2]);
      const Tensor wanted = at::linear(exact_leaves[0], exact_leaves[1], exact_leaves[2]), dy = normal(y.sizes().vec(), 4).to(type);
      const double allowed = type == at::kFloat ? 2e-6 : 1e-2;
      EXPECT_LE(difference(y.detach(), wanted.detach()), allowed) << at::IntArrayRef(sizes);
      const auto d = gradients(y, leaves, dy), d_wanted = gradients(wanted, exact_leaves, dy.to(at::kDouble));
      for (size_t i = 0; i < d.size(); ++i) EXPECT_LE(difference(d[i], d_wanted[i]), allowed) << at::IntArrayRef(sizes) << ", input " << i;
    }
}

}  // namespace
}  // namespace brume::test
