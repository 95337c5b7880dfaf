// Convolutions of bfloat16 on the tiles of AMX: their definition in float64, and that of their gradients, over odd shapes; images that
// depend neither on the batch nor on the threads; what is left to others.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <vector>

#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/memory_pool.h"
#include "brume/nn/ops/tile_conv.h"

namespace brume::test {
namespace {

using at::Tensor;
using nn::Isa;

struct Shape {
  int64_t images, in, out, height, width, kernel;
};
// Channels that fill no row of a tile and pairs that are not full, blocks of one, two and three tiles, sums over several parts, threads
// that share positions and threads that share channels, several chunks of a gradient, groups of three tiles that are not full.
constexpr Shape shapes[] = {{2, 16, 16, 5, 7, 3},    {3, 48, 80, 9, 4, 3},   {1, 32, 32, 1, 1, 3},   {1, 96, 16, 6, 8, 3},
                            {2, 768, 64, 6, 5, 3},   {1, 384, 544, 8, 8, 3}, {5, 64, 32, 60, 50, 3}, {2, 16, 48, 9, 5, 1},
                            {1, 32, 640, 64, 16, 1}, {2, 2080, 64, 7, 3, 1}, {3, 512, 112, 4, 4, 1}, {40, 64, 16, 30, 30, 1}};

Tensor random(std::vector<int64_t> sizes, uint64_t seed) {
  const Tensor x = at::randn(sizes, at::detail::createCPUGenerator(seed), at::kFloat);
  return x.to(at::kBFloat16).contiguous(at::MemoryFormat::ChannelsLast);
}
Tensor images(const Shape& s, int64_t channels, uint64_t seed) { return random({s.images, channels, s.height, s.width}, seed); }
/// In float32, of values that bfloat16 has.
Tensor weight_of(const Shape& s) {
  const double scale = std::exp2(std::round(-std::log2(double(s.kernel * s.kernel * s.in)) / 2));
  return random({s.out, s.in, s.kernel, s.kernel}, 2).to(at::kFloat) * scale;
}
Tensor line(int64_t size) { return at::randn({size}, at::detail::createCPUGenerator(3), at::kFloat); }
double error(const Tensor& a, const Tensor& exact) { return ((a.to(at::kDouble) - exact).norm() / exact.norm()).item<double>(); }

Tensor convolved(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Tensor& sum = {}) {
  const Tensor y = at::empty({x.size(0), weight.size(0), x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
  nn::tile_conv2d(x, nn::tile_weight(weight, false, nn::lasting_memory), bias, sum, y);
  return y;
}
Tensor definition(const Tensor& x, const Tensor& weight, const Tensor& bias = {}) {
  const auto wide = [](const Tensor& t) { return t.defined() ? t.to(at::kDouble).contiguous() : t; };
  return at::conv2d(wide(x), wide(weight), wide(bias), 1, weight.size(2) / 2);
}

class TileConv : public testing::Test {
 protected:
  void SetUp() override {
    if (!nn::isa_supported(Isa::amx)) GTEST_SKIP() << "this processor lacks AMX";
    nn::set_isa(Isa::amx);
  }
  void TearDown() override { nn::set_isa(before_); }
  static constexpr double rounding = 2.5e-3;  // of results to bfloat16
  static constexpr double allowed = 1e-6;     // of sums in float32

 private:
  const Isa before_ = nn::isa();
};

TEST_F(TileConv, IsTheConvolution) {
  for (const Shape& s : shapes) {
    const Tensor x = images(s, s.in, 1), weight = weight_of(s), bias = line(s.out), exact = definition(x, weight, bias);
    const Tensor y = convolved(x, weight, bias);
    EXPECT_LT(error(y, exact), rounding) << weight.sizes() << " of " << x.sizes();
    EXPECT_LT((y.to(at::kDouble) - exact).abs().max().item<double>(), 0.02 * exact.abs().max().item<double>()) << weight.sizes();
  }
}

TEST_F(TileConv, RoundsOnceAfterItAddedAlsoInPlace) {
  for (const Shape& s : {shapes[1], shapes[8]}) {
    const Tensor x = images(s, s.in, 1), weight = weight_of(s), bias = line(s.out), sum = images(s, s.out, 4) * 100;
    const Tensor exact = definition(x, weight, bias) + sum.to(at::kDouble), y = convolved(x, weight, bias, sum);
    EXPECT_LT(((y.to(at::kDouble) - exact).abs() / (exact.abs() + 1)).max().item<double>(), 1.0 / 255) << "half a unit in the last place";
    nn::tile_conv2d(x, nn::tile_weight(weight, false, nn::lasting_memory), bias, sum, sum);
    EXPECT_TRUE(sum.equal(y));
  }
}

TEST_F(TileConv, WeightsMayHaveOtherTypesAndStrides) {
  for (const Shape& s : {shapes[1], shapes[7]}) {
    const Tensor x = images(s, s.in, 1), weight = weight_of(s), y = convolved(x, weight);
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) EXPECT_TRUE(convolved(x, weight.to(type)).equal(y)) << type;
    EXPECT_TRUE(convolved(x, weight.contiguous()).equal(y));
    EXPECT_TRUE(convolved(x, weight.transpose(0, 1).contiguous().transpose(0, 1)).equal(y));
  }
}

TEST_F(TileConv, AnImageDependsNeitherOnTheBatchNorOnTheThreads) {
  const int threads = at::get_num_threads();
  for (const Shape& s : {Shape{17, 32, 48, 12, 9, 3}, Shape{9, 384, 544, 8, 8, 3}, Shape{16, 64, 96, 30, 2, 1}}) {
    const Tensor x = images(s, s.in, 1), weight = weight_of(s), all = convolved(x, weight);
    for (const int64_t count : {1, 2, 3})
      for (const int64_t first : {int64_t(0), s.images - count})
        EXPECT_TRUE(convolved(x.narrow(0, first, count), weight).equal(all.narrow(0, first, count))) << count << " from " << first;
    at::set_num_threads(threads == 1 ? 3 : 1);
    const Tensor again = convolved(x, weight);
    at::set_num_threads(threads);
    EXPECT_TRUE(again.equal(all));
  }
}

TEST_F(TileConv, TheGradientIsAConvolutionAsWell) {
  for (const Shape& s : shapes) {
    const Tensor weight = weight_of(s), dy = images(s, s.out, 5), dx = images(s, s.in, 1);
    const Tensor x = dx.to(at::kDouble).requires_grad_();
    definition(x, weight).backward(dy.to(at::kDouble));
    nn::tile_conv2d(dy, nn::tile_weight(weight, true, nn::lasting_memory), {}, {}, dx);
    EXPECT_LT(error(dx, x.grad()), rounding) << weight.sizes() << " of " << x.sizes();
  }
}

TEST_F(TileConv, TheGradientByTheWeightIsItsDefinition) {
  for (const Shape& s : shapes) {
    const Tensor x = images(s, s.in, 1), dy = images(s, s.out, 5), bias = line(s.out).to(at::kDouble).requires_grad_();
    const Tensor exact = weight_of(s).to(at::kDouble).requires_grad_();
    definition(x, exact, bias).backward(dy.to(at::kDouble));
    for (const at::MemoryFormat format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      const Tensor dw = at::empty(exact.sizes(), at::kFloat, format), db = at::empty({s.out}, at::kFloat);
      nn::tile_conv_gradient(x, dy, dw, db);
      EXPECT_LT(error(dw, exact.grad()), allowed) << dw.sizes() << " of " << x.sizes();
      EXPECT_LT(error(db, bias.grad()), allowed) << dw.sizes() << " of " << x.sizes();
      const Tensor again = at::empty_like(dw);
      const int threads = at::get_num_threads();
      at::set_num_threads(threads == 1 ? 3 : 1);
      nn::tile_conv_gradient(x, dy, again, {});
      at::set_num_threads(threads);
      EXPECT_TRUE(again.equal(dw)) << "threads";
    }
  }
}

TEST_F(TileConv, LeavesTheOthersToOneDnn) {
  if (std::getenv("BRUME_TILES")) GTEST_SKIP() << "BRUME_TILES is set";
  const auto fits = [](std::vector<int64_t> sizes, int64_t stride, int64_t padding, nn::TilePass pass = nn::TilePass::by_weight,
                       at::ScalarType type = at::kBFloat16) { return nn::tile_conv_fits(pass, type, at::empty(sizes), stride, padding); };
  EXPECT_TRUE(fits({16, 48, 3, 3}, 1, 1));
  EXPECT_TRUE(fits({16, 48, 1, 1}, 1, 0));
  EXPECT_TRUE(fits({16, 48, 3, 3}, 1, 1, nn::TilePass::by_x));
  EXPECT_FALSE(fits({16, 128, 3, 3}, 1, 1, nn::TilePass::by_x));
  EXPECT_FALSE(fits({16, 48, 3, 3}, 1, 1, nn::TilePass::forward));
  EXPECT_FALSE(fits({16, 48, 3, 3}, 1, 1, nn::TilePass::by_weight, at::kFloat));
  EXPECT_FALSE(fits({16, 48, 3, 3}, 2, 1));
  EXPECT_FALSE(fits({16, 48, 3, 3}, 1, 0));
  EXPECT_FALSE(fits({16, 48, 5, 5}, 1, 2));
  EXPECT_FALSE(fits({8, 48, 3, 3}, 1, 1));
  EXPECT_FALSE(fits({16, 40, 1, 1}, 1, 0));
  nn::set_isa(Isa::avx512_bf16);
  EXPECT_FALSE(fits({16, 48, 3, 3}, 1, 1));
}

}  // namespace
}  // namespace brume::test
