// Noise that is not white: offsets per channel, correlated neighbours, a perturbed input.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/numerics/noising.h"

namespace brume::test {
namespace {

constexpr int64_t count = 64, channels = 3, side = 24;

NoisyBatch drawn(const TrainingNoise& kind, double sigma = 2) {
  at::Generator random = at::detail::createCPUGenerator(7);
  return add_noise(at::zeros({count, channels, side, side}, at::kDouble), std::vector<double>(size_t(count), sigma), random, kind);
}

double mean_product(const Tensor& a, const Tensor& b) { return (a * b).mean().item<double>(); }

TEST(TrainingNoise, WhiteNoiseIsWhatItWas) {
  const NoisyBatch white = drawn({});
  EXPECT_TRUE(white.x.equal(white.noise * 2));
  EXPECT_TRUE(drawn({.perturbation = 0.5}).noise.equal(white.noise)) << "the target's noise is drawn first";
}

TEST(TrainingNoise, NeighboursHaveTheGivenCorrelation) {
  const double r = 0.7;
  const Tensor n = drawn({.correlation = r}).noise;
  const auto part = [&](int64_t dy, int64_t dx) { return n.narrow(2, dy, side - 3).narrow(3, dx, side - 3); };
  EXPECT_NEAR(mean_product(n, n), 1, 0.02);
  EXPECT_NEAR(n.mean().item<double>(), 0, 0.08);
  EXPECT_NEAR(mean_product(part(0, 0), part(0, 1)), r, 0.02);
  EXPECT_NEAR(mean_product(part(0, 0), part(1, 0)), r, 0.02);
  EXPECT_NEAR(mean_product(part(0, 0), part(1, 2)), r * r * r, 0.02);
  EXPECT_NEAR(mean_product(n.select(2, 0), n.select(2, 0)), 1, 0.05) << "the first row is like the others";
}

TEST(TrainingNoise, AnOffsetIsOneNumberPerChannel) {
  const Tensor added = drawn({.offset = 0.5}).noise - drawn({}).noise;
  EXPECT_TRUE(added.allclose(added.select(3, 0).select(2, 0).unsqueeze(2).unsqueeze(3).expand_as(added), 0, 1e-12));
  EXPECT_NEAR(mean_product(added, added), 0.25, 0.06);
}

TEST(TrainingNoise, APerturbationIsOfTheInputAlone) {
  const NoisyBatch b = drawn({.perturbation = 0.5});
  const Tensor more = b.x / 2 - b.noise;
  EXPECT_NEAR(mean_product(more, more), 0.25, 0.01);
  EXPECT_NEAR(mean_product(more, b.noise), 0, 0.01);
}

}  // namespace
}  // namespace brume::test
