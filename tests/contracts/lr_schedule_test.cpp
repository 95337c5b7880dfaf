// Every schedule of the learning rate: what all have in common, and the values of each.
#include <cmath>

#include "brume/core/lr_schedule.h"
#include "support/registry.h"

namespace brume::test {
namespace {

class LearningRateScheduleContract : public testing::TestWithParam<Specimen> {};

TEST_P(LearningRateScheduleContract, IsAShareOfTheLearningRate) {
  const auto schedule = make<LearningRateSchedule>(GetParam().yaml);
  double largest = 0;
  for (const int64_t steps : {1, 2, 7, 1000})
    for (int64_t step = 0; step <= steps + 5; ++step) {
      const double f = schedule->factor({step, steps, 10});
      EXPECT_TRUE(f >= 0 && f <= 1) << step << " of " << steps << ": " << f;
      largest = std::max(largest, f);
    }
  EXPECT_NEAR(largest, 1, 1e-9) << "lr is the largest learning rate";
}

TEST_P(LearningRateScheduleContract, EqualArgumentsGiveEqualBits) {
  const auto a = make<LearningRateSchedule>(GetParam().yaml), b = make<LearningRateSchedule>(GetParam().yaml);
  for (int64_t step = 50; step >= 0; --step) EXPECT_EQ(a->factor({step, 50, 3}), b->factor({step, 50, 3}));
}

TEST_P(LearningRateScheduleContract, SaysWhetherItDependsOnTheNumberOfSteps) {
  const auto schedule = make<LearningRateSchedule>(GetParam().yaml);
  bool depends = false;
  for (int64_t step = 0; step < 50; ++step) depends |= schedule->factor({step, 50, 3}) != schedule->factor({step, 80, 3});
  EXPECT_EQ(schedule->depends_on_steps(), depends);
}

INSTANTIATE_TEST_SUITE_P(Registry, LearningRateScheduleContract,
                         testing::ValuesIn(specimens(
                             "lr_schedule", {"{type: cosine_restarts, cycles: 3}", "{type: cosine_restarts, cycles: 3, factor: 2}",
                                             "{type: polynomial, power: 0.5, end: 0.1}", "{type: inverse_sqrt, from: 20}",
                                             "{type: stable_decay, share: 0.5, shape: sqrt, end: 0.1}", "{type: stable_decay, share: 1}"})),
                         readable);

double factor(const std::string& yaml, int64_t step, int64_t steps, int64_t warmup = 0) {
  return make<LearningRateSchedule>(yaml)->factor({step, steps, warmup});
}

TEST(LearningRateSchedules, StraightAndCurvedFalls) {
  EXPECT_DOUBLE_EQ(factor("linear", 25, 100), 0.75);
  EXPECT_DOUBLE_EQ(factor("polynomial", 25, 100), 0.75 * 0.75);
  EXPECT_DOUBLE_EQ(factor("{type: polynomial, power: 1, end: 0.2}", 25, 100), 0.2 + 0.8 * 0.75);
  EXPECT_DOUBLE_EQ(factor("{type: polynomial, end: 0.2}", 200, 100), 0.2);
  EXPECT_DOUBLE_EQ(factor("{type: cosine, end: 0.2}", 50, 100), 0.6);
  EXPECT_EQ(factor("cosine", 100, 100), 0);
}

TEST(LearningRateSchedules, Restarts) {
  const char* three = "{type: cosine_restarts, cycles: 3}";
  EXPECT_DOUBLE_EQ(factor(three, 10, 60), 0.5);
  EXPECT_DOUBLE_EQ(factor(three, 20, 60), 1);
  EXPECT_NEAR(factor(three, 59, 60), 0.5 * (1 + std::cos(M_PI * 0.95)), 1e-12);
  EXPECT_EQ(factor(three, 60, 60), 0);
  const char* longer = "{type: cosine_restarts, cycles: 3, factor: 2}";  // cycles of 1, 2 and 4 parts
  EXPECT_DOUBLE_EQ(factor(longer, 10, 70), 1);
  EXPECT_DOUBLE_EQ(factor(longer, 20, 70), 0.5);
  EXPECT_DOUBLE_EQ(factor(longer, 30, 70), 1);
  EXPECT_DOUBLE_EQ(factor(longer, 50, 70), 0.5);
}

TEST(LearningRateSchedules, OneCycle) {
  EXPECT_NEAR(factor("one_cycle", 0, 100), 1.0 / 25, 1e-15);
  EXPECT_DOUBLE_EQ(factor("one_cycle", 29, 100), 1);  // PyTorch's pct_start 0.3: 0.3 * 100 - 1
  EXPECT_NEAR(factor("one_cycle", 64, 100), (1 + 1 / 25e4) / 2, 1e-12);
  EXPECT_NEAR(factor("one_cycle", 99, 100), 1 / 25e4, 1e-15);
}

TEST(LearningRateSchedules, InverseRootCountsTheWarmUp) {
  EXPECT_EQ(factor("{type: inverse_sqrt, from: 100}", 90, 1000, 10), 1);
  EXPECT_DOUBLE_EQ(factor("{type: inverse_sqrt, from: 100}", 390, 1000, 10), 0.5);
}

}  // namespace
}  // namespace brume::test
