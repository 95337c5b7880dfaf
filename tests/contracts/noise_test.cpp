// Where noise comes from: one Brownian path per image, so that solvers of the SDE converge as their steps grow.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "brume/core/sampler.h"
#include "support/gaussian.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);

TEST(BrownianNoise, IsNormalAndItsIncrementsAddUp) {
  const auto noise = brownian_noise(3, 0);
  const Tensor like = at::zeros({2, 20000}, f64);
  const Tensor whole = noise->draw(like, 10, 0.1), first = noise->draw(like, 10, 2), second = noise->draw(like, 2, 0.1);
  const double a = std::log(10 / 2.0), b = std::log(2 / 0.1);
  EXPECT_LT((whole * std::sqrt(a + b) - first * std::sqrt(a) - second * std::sqrt(b)).abs().max().item<double>(), 1e-9);
  for (const Tensor& n : {whole, first, second}) {
    EXPECT_NEAR(n.mean().item<double>(), 0, 5 / std::sqrt(40000.0));
    EXPECT_NEAR(n.var().item<double>(), 1, 5 * std::sqrt(2 / 40000.0));
  }
  // Increments over different times are independent.
  EXPECT_NEAR((first * second).mean().item<double>(), 0, 5 / std::sqrt(40000.0));
}

TEST(BrownianNoise, ImageIDoesNotDependOnItsBatch) {
  const Tensor five = brownian_noise(3, 0)->draw(at::zeros({5, 2, 3}, f64), 7, 0.2);
  for (int64_t i = 0; i < 5; ++i)
    EXPECT_TRUE(at::equal(brownian_noise(3, i)->draw(at::zeros({1, 2, 3}, f64), 7, 0.2), five.narrow(0, i, 1)));
}

/// A stochastic sampler at twice the steps ends nearer to itself at very many; with independent noise it ends anywhere.
TEST(BrownianNoise, StochasticSamplersConverge) {
  const GaussianDenoiser denoiser(0.6);
  const Condition none;
  for (const char* sampler : {"dpmpp_sde", "dpmpp_2m_sde", "euler_ancestral", "dpmpp_3m_sde"}) {
    const auto end = [&](int64_t steps, bool brownian) {
      const auto noise = brownian ? brownian_noise(9, 0) : per_image_noise(9, 0);
      brume::Run run{none, *noise, {}, nullptr};
      return make<Sampler>(sampler)->sample(denoiser, at::full({1, 400}, 5.0, f64), curved(8, 0.05, steps), run);
    };
    const auto distance = [&](int64_t steps, bool brownian) {
      return (end(steps, brownian) - end(1600, brownian)).pow(2).mean().sqrt().item<double>();
    };
    const double coarse = distance(25, true), fine = distance(200, true);
    EXPECT_LT(fine, 0.5 * coarse) << sampler;
    EXPECT_GT(distance(200, false), 3 * fine) << sampler;
  }
}

}  // namespace
}  // namespace brume::test
