// Weights packed for oneDNN: the same results as unpacked, whatever happens to the weight; images that depend on themselves alone; and
// the profile of operations.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/one_call_scope.h"
#include "brume/nn/ops/op_profile.h"
#include "brume/nn/ops/ops.h"

namespace brume::test {
namespace {

using at::Tensor;

Tensor image(std::vector<int64_t> sizes, at::ScalarType type, uint64_t seed = 1) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::kFloat).to(type).contiguous(at::MemoryFormat::ChannelsLast);
}

/// The largest difference in units of the largest value.
double difference(const Tensor& a, const Tensor& b) {
  return ((a.to(at::kDouble) - b.to(at::kDouble)).abs().max() / b.to(at::kDouble).abs().max()).item<double>();
}

Tensor exact(const nn::Conv2d& conv, const Tensor& x) {
  const auto wide = [](const Tensor& t) { return t.defined() ? t.to(at::kDouble) : t; };
  const Tensor weight = conv.weight.dim() == 3 ? conv.weight.unsqueeze(-1) : conv.weight;
  return at::conv2d(wide(x), wide(weight), wide(conv.bias), conv.stride, conv.padding);
}

class Packed : public testing::TestWithParam<at::ScalarType> {
 protected:
  double allowed() const { return GetParam() == at::kBFloat16 ? 1e-2 : 2e-6; }
  const at::NoGradGuard no_grad_;
};

TEST_P(Packed, ConvolutionsAreTheirDefinition) {
  const nn::Builder build(1);
  const std::vector<nn::Conv2d> layers = {build.conv2d("a", 8, 16, 3), build.conv2d("b", 8, 5, 3, 2), build.conv2d("c", 8, 12, 1),
                                          build.conv2d("d", 8, 16, 3, 1, false), build.conv1x1("e", 8, 24)};
  for (const nn::Conv2d& conv : layers)
    for (const int64_t size : {1, 8, 11}) {
      const Tensor x = image({3, 8, size, size}, GetParam());
      EXPECT_LT(difference(conv(x), exact(conv, x)), allowed()) << conv.weight.sizes() << " at " << size;
    }
}

TEST_P(Packed, LinearLayersAreTheirDefinition) {
  const nn::Linear linear = nn::Builder(1).linear("a", 24, 40);
  for (const std::vector<int64_t>& sizes : std::vector<std::vector<int64_t>>{{5, 24}, {2, 7, 24}}) {
    const Tensor x = at::randn(sizes, at::detail::createCPUGenerator(2), at::kFloat).to(GetParam());
    const Tensor wanted = at::linear(x.to(at::kDouble), linear.weight.to(at::kDouble), linear.bias.to(at::kDouble));
    EXPECT_LT(difference(linear(x), wanted), allowed());
  }
}

TEST_P(Packed, AnImageDependsOnItselfAlone) {
  struct Shape {
    int64_t in, out, kernel, stride, size;
  };
  for (const Shape& s : {Shape{32, 64, 3, 1, 16}, Shape{3, 32, 3, 1, 16}, Shape{64, 96, 3, 2, 9}, Shape{128, 128, 3, 1, 4},
                         Shape{160, 48, 1, 1, 5}, Shape{40, 3, 3, 1, 8}}) {
    const nn::Conv2d conv = nn::Builder(1).conv2d("a", s.in, s.out, s.kernel, s.stride);
    const Tensor x = image({17, s.in, s.size, s.size}, GetParam()), all = conv(x);
    for (const int64_t count : {1, 2, 3, 5, 8})
      for (const int64_t first : {int64_t(0), 17 - count})
        EXPECT_TRUE(conv(x.narrow(0, first, count)).equal(all.narrow(0, first, count)))
            << conv.weight.sizes() << " at " << s.size << ", " << count << " from " << first;
  }
}

TEST_P(Packed, AddToASum) {
  const nn::Builder build(1);
  const double allowed = 4 * this->allowed();  // of many channels, by Winograd on AVX2
  const std::vector<nn::Conv2d> layers = {build.conv2d("a", 8, 16, 3), build.conv2d("b", 8, 16, 1), build.conv2d("c", 8, 16, 3, 1, false),
                                          build.conv2d("d", 960, 16, 3), build.conv2d("e", 960, 16, 3, 1, false)};
  for (const nn::Conv2d& conv : layers) {
    const Tensor x = image({3, conv.weight.size(1), 6, 6}, GetParam());
    const Tensor sum = image({3, 16, 6, 6}, GetParam(), 2), before = sum.clone();
    const Tensor wanted = exact(conv, x) + sum.to(at::kDouble), y = conv.onto(sum, x);
    EXPECT_LT(difference(y, wanted), allowed) << conv.weight.sizes();
    EXPECT_TRUE(sum.equal(before)) << "somebody else's";
    EXPECT_TRUE(conv.onto(sum.clone(), x).equal(y)) << "the same, whoever holds it";
    EXPECT_TRUE(conv.onto(sum.contiguous(), x).equal(y)) << "in another order";
    EXPECT_TRUE(conv.onto(sum.narrow(0, 1, 1), x.narrow(0, 1, 1)).equal(y.narrow(0, 1, 1))) << "an image alone";
    EXPECT_LT(difference(conv(x), exact(conv, x)), allowed) << "without, after with";
  }
  const nn::Linear linear = build.linear("f", 24, 40);
  const Tensor x = at::randn({2, 7, 24}).to(GetParam()), sum = at::randn({2, 7, 40}).to(GetParam());
  const Tensor wanted = at::linear(x.to(at::kDouble), linear.weight.to(at::kDouble), linear.bias.to(at::kDouble)) + sum.to(at::kDouble);
  EXPECT_LT(difference(linear.onto(sum, x), wanted), allowed);
  Tensor given = sum.clone();
  const void* const memory = given.data_ptr();
  const bool in_place = nn::isa() == nn::Isa::amx && GetParam() == at::kBFloat16;  // elsewhere a pass of its own is faster
  EXPECT_EQ(linear.onto(std::move(given), x).data_ptr() == memory, in_place);
}

TEST(AddToASum, IsRecorded) {
  const nn::Conv2d conv = nn::Builder(1).conv2d("a", 4, 6, 3);
  const Tensor x = image({2, 4, 8, 8}, at::kFloat), sum = image({2, 6, 8, 8}, at::kFloat, 2).set_requires_grad(true);
  conv.onto(sum, x).sum().backward();
  EXPECT_TRUE(sum.grad().equal(at::ones_like(sum)));
}

TEST_P(Packed, FollowsTheWeight) {
  nn::Conv2d conv = nn::Builder(1).conv2d("a", 8, 16, 3);
  const Tensor x = image({2, 8, 9, 9}, GetParam()), first = conv(x);
  conv.weight.mul_(2);
  EXPECT_LT(difference(conv(x), exact(conv, x)), allowed()) << "written to";
  conv.weight.set_data(conv.weight + 1);
  EXPECT_LT(difference(conv(x), exact(conv, x)), allowed()) << "another tensor in its place";
  conv.weight.set_data(conv.weight.to(at::kHalf));
  EXPECT_LT(difference(conv(x), exact(conv, x)), allowed()) << "of another type";
  for (int64_t i = 0; i < 20; ++i) {  // freed and made again, often at the same address
    conv.weight.set_data(image({16, 8, 3, 3}, at::kFloat, uint64_t(i)));
    EXPECT_LT(difference(conv(x), exact(conv, x)), allowed()) << i;
  }
}

/// Whether they are kept or packed at each call, as those of 16 bits are for large images.
TEST_P(Packed, WeightsOfSixteenBitsGiveTheBitsOfTheirNumbers) {
  const nn::Builder build(1);
  for (nn::Conv2d narrow : {build.conv2d("a", 8, 16, 3), build.conv2d("b", 8, 12, 1), build.conv2d("c", 8, 16, 3, 2)}) {
    nn::Conv2d wide = build.conv2d("w", 8, narrow.weight.size(0), narrow.weight.size(2), narrow.stride);
    narrow.weight.set_data(narrow.weight.to(at::kHalf));
    wide.weight.set_data(narrow.weight.to(at::kFloat));
    wide.bias.copy_(narrow.bias);
    for (const int64_t size : {8, 33, 64}) {
      const Tensor x = image({2, 8, size, size}, GetParam());
      EXPECT_TRUE(narrow(x).equal(wide(x))) << size;
      EXPECT_TRUE(narrow(x).equal(wide(x))) << size << " again";
    }
  }
}

TEST_P(Packed, ANetworkThatIsCalledOnceGivesTheSameBits) {
  const nn::Linear linear = nn::Builder(1).linear("a", 520, 512);  // large enough not to be kept
  const Tensor x = at::randn({2, 9, 520}, at::detail::createCPUGenerator(2), at::kFloat).to(GetParam());
  Tensor once;
  {
    const nn::OneCallScope scope;
    EXPECT_TRUE(nn::OneCallScope::active());
    once = linear(x);
    EXPECT_TRUE(linear(x).equal(once));
  }
  EXPECT_FALSE(nn::OneCallScope::active());
  EXPECT_TRUE(linear(x).equal(once));
  linear.weight.mul_(2);
  const nn::OneCallScope scope;
  EXPECT_LT(difference(linear(x), at::linear(x.to(at::kDouble), linear.weight.to(at::kDouble), linear.bias.to(at::kDouble))), allowed());
}

TEST_P(Packed, ServesManyThreadsAndShapes) {
  const nn::Conv2d conv = nn::Builder(1).conv2d("a", 8, 16, 3);
  std::vector<Tensor> inputs, wanted, got(24);
  for (int64_t i = 0; i < 24; ++i) {  // more shapes than are kept
    inputs.push_back(image({1 + i % 3, 8, 4 + i, 5}, GetParam()));
    wanted.push_back(conv(inputs.back()));
  }
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      const at::NoGradGuard no_grad;
      for (size_t i = t; i < inputs.size(); i += 3) got[i] = conv(inputs[i]);
    });
  for (std::thread& t : threads) t.join();
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(got[i].equal(wanted[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Types, Packed, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return at::toString(info.param); });

TEST(PackedWeights, AreNotUsedForWeightsThatLearn) {
  const nn::Conv2d conv = nn::Builder(1).conv2d("a", 4, 6, 3);
  Tensor(conv.weight).set_requires_grad(true);
  const Tensor x = image({2, 4, 8, 8}, at::kFloat);
  const Tensor before = conv(x).detach();
  {
    const at::NoGradGuard no_grad;
    float* value = conv.weight.data_ptr<float>();
    for (int64_t i = 0; i < conv.weight.numel(); ++i) value[i] += 1;  // as an optimiser writes, unseen by LibTorch
    EXPECT_LT(difference(conv(x), exact(conv, x)), 2e-6);
  }
  Tensor out = conv(x);
  out.sum().backward();
  EXPECT_TRUE(conv.weight.grad().defined());
  EXPECT_FALSE(out.equal(before));
}

TEST(OpProfile, CountsEachOperationOnce) {
  const at::NoGradGuard no_grad;
  const nn::Builder build(1);
  const nn::Conv2d conv = build.conv2d("a", 4, 6, 3);
  const nn::Linear linear = build.linear("b", 8, 10);
  const Tensor x = image({2, 4, 8, 8}, at::kFloat), rows = at::randn({3, 5, 8});
  linear(rows);
  const nn::OpProfile outer;
  {
    const nn::OpProfile profile;
    conv(x), conv(x), linear(rows);
    ASSERT_EQ(profile.rows().size(), 2u) << "a linear layer is one, although it is a convolution inside";
    EXPECT_EQ(profile.rows().at("conv2d").calls, 2);
    EXPECT_EQ(profile.rows().at("conv2d").flops, 2 * 2.0 * 2 * 8 * 8 * 6 * 4 * 9);
    EXPECT_EQ(profile.rows().at("linear").flops, 2.0 * 3 * 5 * 8 * 10);
    EXPECT_GT(profile.rows().at("linear").seconds, 0);
  }
  EXPECT_TRUE(outer.rows().empty());
}

}  // namespace
}  // namespace brume::test
