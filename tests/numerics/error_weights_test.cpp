// Weighted errors: weights of 1 change no bit, and others are those of kohya-ss/sd-scripts' masked loss, written out here.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/core/parameterization.h"
#include "brume/numerics/noising.h"
#include "support/registry.h"

namespace brume::test {
namespace {

class ErrorOfWeights : public testing::Test {
 protected:
  const at::TensorOptions doubles = at::TensorOptions().dtype(at::kDouble);
  at::Generator random = at::detail::createCPUGenerator(7);
  NoisyBatch batch = add_noise(at::randn({3, 2, 4, 4}, random, doubles), {0.5, 1, 2}, random);
  Tensor f = at::randn({3, 2, 4, 4}, random, doubles);
  std::shared_ptr<const Parameterization> eps = make<Parameterization>("eps");
  TargetError error{.weighting = make<Weighting>("none")};
  Tensor losses() const { return error.per_image(batch, f, *eps); }
};

TEST_F(ErrorOfWeights, OnesChangeNoBit) {
  const Tensor plain = losses();
  const ErrorWeights ones(at::ones({3, 1, 8, 8}));
  EXPECT_TRUE(at::equal(losses(), plain));
  EXPECT_TRUE(ones.used());
}

TEST_F(ErrorOfWeights, TakeTheMeanOfTheirPixels) {
  const Tensor w = at::rand({3, 1, 8, 12}, random, doubles);
  double expected = 0;
  for (int64_t c = 0; c < 2; ++c)
    for (int64_t y = 0; y < 4; ++y)
      for (int64_t x = 0; x < 4; ++x) {
        double mean = 0;
        for (int64_t i = 0; i < 2; ++i)
          for (int64_t j = 0; j < 3; ++j) mean += w[1][0][2 * y + i][3 * x + j].item<double>() / 6;
        const double e = (f[1][c][y][x] - batch.noise[1][c][y][x]).item<double>();
        expected += mean * e * e / 32;
      }
  const ErrorWeights scope(w);
  EXPECT_NEAR(losses()[1].item<double>(), expected, 1e-7);
}

TEST_F(ErrorOfWeights, HiddenPixelsHaveNoGradient) {
  f.set_requires_grad(true);
  const Tensor w = at::ones({3, 1, 8, 8});
  w.narrow(3, 4, 4).zero_();
  const ErrorWeights scope(w);
  losses().sum().backward();
  EXPECT_EQ(f.grad().narrow(3, 2, 2).abs().max().item<double>(), 0);
  EXPECT_GT(f.grad().narrow(3, 0, 2).abs().min().item<double>(), 0);
}

TEST_F(ErrorOfWeights, InnerScopesAndUndefinedOnes) {
  const Tensor plain = losses();
  const ErrorWeights zeros(at::zeros({3, 1, 4, 4}));
  {
    const ErrorWeights none{Tensor()};
    EXPECT_TRUE(at::equal(losses(), plain));
  }
  EXPECT_EQ(losses().abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace brume::test
