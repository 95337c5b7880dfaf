// 3x3 convolutions by Winograd's F(4x4, 3x3): their definition in float64 over odd shapes, on each instruction set; weights of two bytes;
// images that depend neither on the batch nor on the threads; and the weight of the gradient.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/memory_pool.h"
#include "brume/nn/ops/winograd.h"

namespace brume::test {
namespace {

using at::Tensor;
using nn::Isa;

struct Shape {
  int64_t images, in, out, height, width;
};
// Tiles that are cut at either edge or at both, panels that are not full, sums over several parts, several chunks of tiles.
constexpr Shape shapes[] = {{1, 16, 16, 8, 8},   {3, 32, 48, 9, 6},  {2, 48, 16, 5, 13}, {1, 16, 80, 31, 7},
                            {2, 672, 32, 6, 10}, {1, 256, 48, 8, 8}, {9, 32, 32, 64, 64}};

Tensor random(std::vector<int64_t> sizes, uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
}
Tensor images(const Shape& s, int64_t channels, uint64_t seed) { return random({s.images, channels, s.height, s.width}, seed); }
Tensor weight_of(const Shape& s) { return random({s.out, s.in, 3, 3}, 2) / std::sqrt(9.0 * double(s.in)); }
Tensor line(int64_t size) { return at::randn({size}, at::detail::createCPUGenerator(3), at::kFloat); }

double error(const Tensor& a, const Tensor& exact) { return ((a.to(at::kDouble) - exact).norm() / exact.norm()).item<double>(); }

Tensor convolved(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Tensor& sum = {}) {
  const Tensor y = at::empty({x.size(0), weight.size(0), x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
  nn::winograd_conv2d(x, nn::winograd_weight(weight, nn::lasting_memory), bias, sum, y);
  return y;
}
Tensor definition(const Tensor& x, const Tensor& weight, const Tensor& bias = {}) {
  const auto wide = [](const Tensor& t) { return t.defined() ? t.to(at::kDouble).contiguous() : t; };
  return at::conv2d(wide(x), wide(weight), wide(bias), 1, 1);
}

class Winograd : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!nn::isa_supported(GetParam())) GTEST_SKIP() << "this processor lacks " << nn::isa_name(GetParam());
    nn::set_isa(GetParam());
  }
  void TearDown() override { nn::set_isa(before_); }
  static constexpr double allowed = 3e-6;

 private:
  const Isa before_ = nn::isa();
};

TEST_P(Winograd, IsTheConvolution) {
  for (const Shape& s : shapes) {
    const Tensor x = images(s, s.in, 1), weight = weight_of(s), bias = line(s.out);
    EXPECT_LT(error(convolved(x, weight, bias), definition(x, weight, bias)), allowed) << weight.sizes() << " of " << x.sizes();
  }
}

TEST_P(Winograd, AddsWhatIsGivenAlsoInPlace) {
  const Shape s = shapes[1];
  const Tensor x = images(s, s.in, 1), weight = weight_of(s), bias = line(s.out), sum = images(s, s.out, 4);
  const Tensor y = convolved(x, weight, bias, sum);
  EXPECT_LT(error(y, definition(x, weight, bias) + sum), allowed);
  nn::winograd_conv2d(x, nn::winograd_weight(weight, nn::lasting_memory), bias, sum, sum);
  EXPECT_TRUE(sum.equal(y));
}

TEST_P(Winograd, WeightsOfTwoBytesAreThoseNumbers) {
  const Shape s = shapes[1];
  const Tensor x = images(s, s.in, 1);
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
    const Tensor weight = weight_of(s).to(type);
    const nn::WinogradWeight packed = nn::winograd_weight(weight, nn::lasting_memory);
    EXPECT_LT(packed.stored.nbytes(), size_t(weight.numel() * 4)) << "of two bytes, although panels are filled up";
    EXPECT_TRUE(convolved(x, weight).equal(convolved(x, weight.to(at::kFloat)))) << type;
  }
}

TEST_P(Winograd, AnImageDependsOnItselfAlone) {
  const Shape s{17, 32, 48, 12, 9};
  const Tensor x = images(s, s.in, 1), weight = weight_of(s), all = convolved(x, weight);
  for (const int64_t count : {1, 2, 3, 5, 8})
    for (const int64_t first : {int64_t(0), 17 - count})
      EXPECT_TRUE(convolved(x.narrow(0, first, count), weight).equal(all.narrow(0, first, count))) << count << " from " << first;
}

TEST_P(Winograd, DoesNotDependOnTheThreads) {
  const Shape s = shapes[6];
  const Tensor x = images(s, s.in, 1), weight = weight_of(s), all = convolved(x, weight);
  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 3 : 1);
  const Tensor again = convolved(x, weight);
  at::set_num_threads(threads);
  EXPECT_TRUE(again.equal(all));
}

TEST_P(Winograd, TheGradientIsAConvolutionAsWell) {
  for (const Shape& s : {shapes[1], shapes[3]}) {
    const Tensor weight = weight_of(s), dy = images(s, s.out, 5), dx = at::empty_like(images(s, s.in, 1));
    const Tensor x = dx.to(at::kDouble).zero_().requires_grad_();
    definition(x, weight).backward(dy.to(at::kDouble));
    nn::winograd_conv2d(dy, nn::winograd_gradient_weight(weight, nn::lasting_memory), {}, {}, dx);
    EXPECT_LT(error(dx, x.grad()), allowed) << weight.sizes();
  }
}

TEST_P(Winograd, TheGradientByTheWeightIsItsDefinition) {
  // Channels that fill no panel, tiles that are cut, more tiles than are summed together, several sets of output channels.
  for (const Shape& s : {shapes[1], shapes[2], shapes[3], shapes[5], shapes[6], Shape{1, 480, 528, 9, 8}}) {
    const Tensor x = images(s, s.in, 1), dy = images(s, s.out, 5), bias = line(s.out).to(at::kDouble).requires_grad_();
    const Tensor exact = weight_of(s).to(at::kDouble).requires_grad_();
    definition(x, exact, bias).backward(dy.to(at::kDouble));
    for (const at::MemoryFormat format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      const Tensor dw = at::empty(exact.sizes(), x.options(), format), db = at::empty({s.out}, x.options());
      nn::winograd_gradient(x, dy, dw, db);
      EXPECT_LT(error(dw, exact.grad()), allowed) << dw.sizes() << " of " << x.sizes();
      EXPECT_LT(error(db, bias.grad()), allowed) << dw.sizes() << " of " << x.sizes();
    }
  }
}

TEST_P(Winograd, TheGradientByTheWeightDoesNotDependOnTheThreads) {
  const Shape s = shapes[6];
  const Tensor x = images(s, s.in, 1), dy = images(s, s.out, 5), dw = at::empty_like(weight_of(s)), again = at::empty_like(dw);
  nn::winograd_gradient(x, dy, dw, {});
  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 3 : 1);
  nn::winograd_gradient(x, dy, again, {});
  at::set_num_threads(threads);
  EXPECT_TRUE(again.equal(dw));
}

INSTANTIATE_TEST_SUITE_P(Sets, Winograd, testing::Values(Isa::avx2, Isa::avx512),
                         [](const auto& info) { return std::string(nn::isa_name(info.param)); });

}  // namespace
}  // namespace brume::test
