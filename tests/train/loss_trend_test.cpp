// When a loss counts as one that grows.
#include "brume/train/loss_trend.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace brume::test {
namespace {

TEST(LossTrend, NoiseOfOneImagePerStepIsNotGrowth) {
  std::mt19937 random(7);
  std::exponential_distribution<double> losses(1 / 0.15);
  LossTrend trend;
  for (int i = 0; i < 100000; ++i) ASSERT_FALSE(trend.add(losses(random))) << i;
  EXPECT_FALSE(trend.told());
}

TEST(LossTrend, GrowthIsSaidOnceAfterFewSteps) {
  LossTrend trend;
  for (int i = 0; i < 500; ++i) ASSERT_FALSE(trend.add(0.1 + 0.9 * std::exp(-i / 50.0)));
  int steps = 0;
  std::optional<LossTrend::Growth> growth;
  while (!growth && steps < 100) growth = trend.add(2), ++steps;
  ASSERT_TRUE(growth);
  EXPECT_LT(steps, 30);
  EXPECT_NEAR(growth->least, 0.1, 0.01);
  EXPECT_GT(growth->mean, 5 * growth->least);
  for (int i = 0; i < 500; ++i) EXPECT_FALSE(trend.add(2));
}

TEST(LossTrend, GrowthFromTheFirstStepsOn) {
  LossTrend trend;
  bool said = false;
  for (int i = 0; i < 15; ++i) said = trend.add(std::exp(0.7 * i)).has_value() || said;
  EXPECT_TRUE(said);
}

TEST(LossTrend, NegativeLossesAreNotJudged) {
  LossTrend trend;
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(trend.add(-1 + 0.01 * i)) << i;
}

TEST(LossTrend, GoesOnWhereItWas) {
  LossTrend whole, first, second;
  for (int i = 0; i < 60; ++i) whole.add(1), first.add(1);
  second.restore(first.state());
  for (int i = 0; i < 40; ++i) EXPECT_EQ(whole.add(20).has_value(), second.add(20).has_value()) << i;
  EXPECT_TRUE(second.told());
}

}  // namespace
}  // namespace brume::test
