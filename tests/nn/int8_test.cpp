// Products of eight-bit integers: exactly the sums of a plain convolution where input and weights are integers already, without
// saturation; within half a step of each factor elsewhere; the same bits on each instruction set, for each batch and number of threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "brume/nn/ops/int8_product.h"
#include "brume/nn/ops/isa.h"

namespace brume::test {
namespace {

using at::Tensor;
using nn::Isa;

constexpr Isa sets[] = {Isa::generic, Isa::avx2, Isa::avx512, Isa::amx};

class SetIsa {
 public:
  explicit SetIsa(Isa isa) { nn::set_isa(isa); }
  ~SetIsa() { nn::set_isa(before_); }

 private:
  const Isa before_ = nn::isa();
};

struct Shape {
  int64_t images, in, out, height, width, kernel, stride;
};
// Channels that fill no group of four, panels that are not full, several blocks of rows, strides, several parts of a sum.
constexpr Shape shapes[] = {{1, 16, 16, 8, 8, 3, 1},  {3, 35, 50, 9, 7, 3, 1}, {2, 8, 33, 12, 11, 3, 2},  {2, 67, 5, 1, 77, 1, 1},
                            {1, 128, 16, 5, 6, 3, 1}, {2, 3, 20, 8, 8, 4, 4},  {1, 1200, 24, 1, 50, 1, 1}};

at::Generator random(uint64_t seed) { return at::detail::createCPUGenerator(seed); }
Tensor images(const Shape& s, uint64_t seed) {
  return at::randn({s.images, s.in, s.height, s.width}, random(seed), at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
}
Tensor weights(const Shape& s) { return at::randn({s.out, s.in, s.kernel, s.kernel}, random(2), at::kFloat); }
int64_t padding(const Shape& s) { return s.stride == s.kernel ? 0 : s.kernel / 2; }
Tensor definition(const Tensor& x, const Tensor& w, const Shape& s) {
  return at::conv2d(x.to(at::kDouble).contiguous(), w.to(at::kDouble), {}, s.stride, padding(s));
}
Tensor product(const Tensor& x, const Tensor& w, const Shape& s, const Tensor& bias = {}, const Tensor& sum = {}) {
  return nn::int8_conv2d(x, nn::int8_weight(int8_values(w)), bias, s.stride, padding(s), sum);
}

class Int8 : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!nn::isa_supported(GetParam())) GTEST_SKIP() << "this processor lacks " << nn::isa_name(GetParam());
    nn::set_isa(GetParam());
  }
  void TearDown() override { nn::set_isa(before_); }

 private:
  const Isa before_ = nn::isa();
};

/// Numbers that are their own integers: each pixel has the values -128 and 127, each output channel a weight of 63.
struct Integers {
  Tensor x, w;
  explicit Integers(const Shape& s) : x(images(s, 1)), w(weights(s)) {
    x.random_(-128, 128, random(3));
    w.random_(-63, 64, random(4));
    x.select(1, 0).fill_(-128), x.select(1, 1).fill_(127);
    w.select(1, 2).fill_(63);
  }
};

TEST_P(Int8, SumsOfIntegersAreExact) {
  for (const Shape& s : shapes) {
    const Integers of(s);
    EXPECT_TRUE(product(of.x, of.w, s).to(at::kDouble).equal(definition(of.x, of.w, s))) << of.w.sizes() << " of " << of.x.sizes();
  }
}

TEST_P(Int8, TheLargestProductsDoNotSaturate) {
  const Shape s{1, 64, 32, 6, 6, 3, 1};
  for (const double sign : {1.0, -1.0}) {
    const Integers of(s);
    of.x.fill_(127), of.x.select(1, 0).fill_(-128);
    of.w.fill_(sign * 63);
    EXPECT_TRUE(product(of.x, of.w, s).to(at::kDouble).equal(definition(of.x, of.w, s))) << sign;
  }
}

TEST_P(Int8, IsWithinHalfAStepOfEachFactor) {
  for (const Shape& s : shapes) {
    const Tensor x = images(s, 1), w = weights(s), rounded = from_int8(int8_values(w));
    const double step = (x.max() - x.min()).item<double>() / 255;
    const Tensor t = int8_values(w).scales.view({-1, 1, 1, 1});
    const Tensor bound = definition(at::ones_like(x), rounded.abs() * (step / 2), s) + definition(x.abs(), (t / 2).expand_as(w), s);
    const Tensor error = (product(x, w, s).to(at::kDouble) - definition(x, w, s)).abs();
    EXPECT_TRUE((error <= bound * 1.0001).all().item<bool>()) << w.sizes() << " of " << x.sizes();
    EXPECT_LT(error.norm().item<double>(), 0.025 * definition(x, w, s).norm().item<double>()) << w.sizes() << " of " << x.sizes();
  }
}

TEST_P(Int8, AddsBiasAndSumAlsoInPlace) {
  for (const Shape& s : {shapes[0], shapes[1]}) {
    const Integers of(s);
    const Tensor bias = at::arange(s.out, at::kFloat);
    const Tensor sum = at::full({s.images, s.out, s.height, s.width}, 5, at::kFloat);
    const Tensor exact = definition(of.x, of.w, s) + bias.view({1, -1, 1, 1}) + 5;
    EXPECT_TRUE(product(of.x, of.w, s, bias, sum).to(at::kDouble).equal(exact));
    EXPECT_TRUE(product(of.x, of.w, s, bias, sum.contiguous(at::MemoryFormat::ChannelsLast)).to(at::kDouble).equal(exact));
  }
}

TEST_P(Int8, RowsWithoutNumbersSayOnlySoOfThemselves) {
  const Shape s{1, 32, 16, 8, 8, 3, 1};
  const Tensor x = images(s, 1), w = weights(s), whole = product(x, w, s);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const Tensor broken = x.clone();
    broken[0][31][7][7] = bad;
    const Tensor y = product(broken, w, s);
    EXPECT_TRUE(y.narrow(2, 6, 2).narrow(3, 6, 2).isnan().all().item<bool>());
    EXPECT_TRUE(y.narrow(2, 0, 6).equal(whole.narrow(2, 0, 6)));
  }
  EXPECT_TRUE(product(at::zeros_like(x), w, s).equal(at::zeros_like(whole)));
}

TEST_P(Int8, ImagesDependNeitherOnTheBatchNorOnTheThreads) {
  for (const Shape& s : {Shape{3, 35, 50, 9, 7, 3, 1}, Shape{3, 64, 80, 1, 77, 1, 1}}) {
    const Tensor x = images(s, 1) * at::tensor({1.0f, 30.0f, 0.01f}).view({3, 1, 1, 1}), w = weights(s), whole = product(x, w, s);
    for (int64_t i = 0; i < s.images; ++i) EXPECT_TRUE(product(x.narrow(0, i, 1), w, s).equal(whole.narrow(0, i, 1))) << i;
    const int threads = at::get_num_threads();
    at::set_num_threads(threads == 1 ? 2 : 1);
    EXPECT_TRUE(product(x, w, s).equal(whole));
    at::set_num_threads(threads);
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, Int8, testing::ValuesIn(sets), [](const auto& info) { return std::string(nn::isa_name(info.param)); });

TEST(Int8Sets, GiveTheSameBits) {
  for (const Shape& s : shapes) {
    const Tensor x = images(s, 1), w = weights(s), bias = at::randn({s.out}, random(5), at::kFloat);
    const auto on = [&](Isa isa) {
      const SetIsa set(isa);
      return product(x, w, s, bias);
    };
    const Tensor plain = on(Isa::generic);
    for (const Isa isa : sets) {
      if (!nn::isa_supported(isa)) continue;
      EXPECT_TRUE(on(isa).equal(plain)) << nn::isa_name(isa) << ", " << w.sizes() << " of " << x.sizes();
    }
  }
}

TEST(Int8Values, OfTheirNumbersAreThemselves) {
  const Tensor w = weights(shapes[1]);
  for (const Tensor& one : {w, w.view({50, -1}), at::zeros_like(w)}) {
    const Int8Values values = int8_values(one), again = int8_values(from_int8(values));
    EXPECT_TRUE(again.values.equal(values.values));
    EXPECT_TRUE(again.scales.allclose(values.scales));
    EXPECT_LE(values.values.abs().max().item<int64_t>(), 63);
  }
}

TEST(Int8Values, FitSquareWindowsAlone) {
  EXPECT_TRUE(nn::int8_fits(at::empty({4, 3})));
  EXPECT_TRUE(nn::int8_fits(at::empty({4, 3, 1})));
  EXPECT_TRUE(nn::int8_fits(at::empty({4, 3, 3, 3})));
  EXPECT_FALSE(nn::int8_fits(at::empty({4, 3, 3})));
  EXPECT_FALSE(nn::int8_fits(at::empty({4, 3, 1, 3})));
  EXPECT_FALSE(nn::int8_fits(at::empty({4})));
  EXPECT_FALSE(nn::int8_fits(at::empty({1, (1 << 17) + 1})));
}

}  // namespace
}  // namespace brume::test
