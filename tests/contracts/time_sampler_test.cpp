// Every time sampler: sigmas of the schedule, weights that leave the expectation as it is, one source of randomness.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "brume/core/rows.h"
#include "brume/core/time_sampler.h"
#include "brume/numerics/noising.h"
#include "support/registry.h"

namespace brume::test {
namespace {

at::Generator generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

class TimeSamplerContract : public testing::TestWithParam<Specimen> {
 protected:
  std::shared_ptr<const TimeSampler> time_ = make<TimeSampler>(GetParam().yaml);
  TimeSampler::Draw draw(const NoiseSchedule& schedule, int64_t count, uint64_t seed) const {
    at::Generator random = generator(seed);
    return time_->draw(schedule, count, time_->memory(schedule), random);
  }
};

TEST_P(TimeSamplerContract, SigmasAreOfTheSchedule) {
  for (const std::string& name : builtins().names("noise_schedule")) {
    SCOPED_TRACE(name);
    const auto schedule = make<NoiseSchedule>(name);
    const double lo = schedule->sigma(schedule->t_min()), hi = schedule->sigma(schedule->t_max());
    const TimeSampler::Draw d = draw(*schedule, 500, 3);
    ASSERT_EQ(d.sigmas.size(), 500u);
    ASSERT_EQ(d.weights.size(), 500u);
    for (const double s : d.sigmas) EXPECT_TRUE(s >= lo && s <= hi) << s;
    for (const double w : d.weights) EXPECT_TRUE(std::isfinite(w) && w >= 0) << w;
  }
}

TEST_P(TimeSamplerContract, TheWeightsAreOneInTheMean) {
  const auto schedule = make<NoiseSchedule>("cosine");
  const TimeSampler::Draw d = draw(*schedule, 20000, 5);
  EXPECT_NEAR(std::accumulate(d.weights.begin(), d.weights.end(), 0.0) / 20000, 1, 0.05);
}

TEST_P(TimeSamplerContract, TheGeneratorIsTheOnlyRandomness) {
  const auto schedule = make<NoiseSchedule>("angle");
  EXPECT_EQ(draw(*schedule, 8, 1).sigmas, draw(*schedule, 8, 1).sigmas);
  EXPECT_NE(draw(*schedule, 8, 1).sigmas, draw(*schedule, 8, 2).sigmas);
  EXPECT_TRUE(draw(*schedule, 0, 1).sigmas.empty());
}

TEST_P(TimeSamplerContract, ImagesOfTheWholeBatchTakeSharedLevelsByTurns) {
  const auto schedule = make<NoiseSchedule>("cosine");
  const auto shared = [&] {
    at::Generator random = generator(5);
    return shared_levels(*time_, *schedule, 3, batch_part() ? batch_part()->count : 8, time_->memory(*schedule), random);
  };
  const std::vector<double> whole = shared();
  ASSERT_EQ(whole.size(), 8u);
  EXPECT_NE(whole[0], whole[1]);
  for (size_t i = 3; i < whole.size(); ++i) EXPECT_EQ(whole[i], whole[i - 3]);
  const BatchPartScope scope({2, 4, 8});
  EXPECT_EQ(shared(), std::vector<double>(whole.begin() + 2, whole.begin() + 6));
}

INSTANTIATE_TEST_SUITE_P(Registry, TimeSamplerContract,
                         testing::ValuesIn(specimens("time_sampler",
                                                     {"{type: log_normal, mean: 0, std: 3}", "{type: logit_normal, mean: -1, std: 0.5}"})),
                         readable);

/// Kingma et al. 2021, app. I.1: each part of the time has its share of every batch.
TEST(LowDiscrepancy, EveryBatchIsStratified) {
  const auto schedule = make<NoiseSchedule>("angle");
  const auto time = make<TimeSampler>("low_discrepancy");
  for (uint64_t seed = 0; seed < 20; ++seed) {
    at::Generator random = generator(seed);
    std::vector<int> count(16, 0);
    for (const double s : time->draw(*schedule, 16, {}, random).sigmas) ++count[size_t(std::min(15.0, schedule->time(s) * 16))];
    // The offset is common, so no part is empty but by rounding at an edge.
    EXPECT_EQ(*std::max_element(count.begin(), count.end()), 1) << seed;
  }
}

TEST(LogNormal, HasTheMomentsItNames) {
  const auto schedule = make<NoiseSchedule>("cosine");
  at::Generator random = generator(1);
  const auto d = make<TimeSampler>("{type: log_normal, mean: -0.5, std: 0.7}")->draw(*schedule, 20000, {}, random);
  double sum = 0, squares = 0;
  for (const double s : d.sigmas) sum += std::log(s), squares += std::log(s) * std::log(s);
  EXPECT_NEAR(sum / 20000, -0.5, 0.02);
  EXPECT_NEAR(std::sqrt(squares / 20000 - sum / 20000 * sum / 20000), 0.7, 0.02);
}

/// Losses that are known: the mean of a weighted draw is the mean over all times.
class SecondMoment : public testing::Test {
 protected:
  std::shared_ptr<const NoiseSchedule> schedule_ = make<NoiseSchedule>("{type: linear, timesteps: 40, rescale: true}");
  std::shared_ptr<const TimeSampler> time_ = make<TimeSampler>("loss_second_moment");
  std::vector<Weight> memory_ = time_->memory(*schedule_);
  double loss(double sigma) const { return 1 / (0.1 + schedule_->time(sigma)); }

  /// One training step; returns the estimate of the mean loss.
  double step(uint64_t seed, int64_t count = 64) {
    at::Generator random = generator(seed);
    const TimeSampler::Draw d = time_->draw(*schedule_, count, memory_, random);
    std::vector<double> losses;
    double mean = 0;
    for (size_t i = 0; i < d.sigmas.size(); ++i) losses.push_back(loss(d.sigmas[i])), mean += losses.back() * d.weights[i] / double(count);
    time_->learn(*schedule_, d, at::tensor(losses, at::kDouble), memory_);
    return mean;
  }
  bool warm() const { return memory_[1].tensor.min().item<int64_t>() == 10; }
};

TEST_F(SecondMoment, IsEvenUntilEveryTimeHasItsHistory) {
  for (uint64_t seed = 0; !warm(); ++seed) {
    at::Generator random = generator(seed);
    for (const double w : time_->draw(*schedule_, 8, memory_, random).weights) ASSERT_NEAR(w, 1, 1e-12);
    step(seed);
    ASSERT_LT(seed, 200u);
  }
}

TEST_F(SecondMoment, IsUnbiasedAndVariesLess) {
  double exact = 0;
  for (int64_t t = 0; t < 40; ++t) exact += loss(schedule_->sigma(double(t))) / 40;
  const auto moments = [&](uint64_t first) {
    double sum = 0, squares = 0;
    for (uint64_t seed = first; seed < first + 400; ++seed) {
      const double m = step(seed);
      sum += m, squares += m * m;
    }
    return std::pair(sum / 400, std::sqrt(squares / 400 - sum / 400 * sum / 400));
  };
  uint64_t seed = 0;
  double even_squares = 0;
  for (; seed < 20; ++seed) even_squares += std::pow(step(seed) - exact, 2);
  while (!warm()) step(seed++);
  const auto [mean, spread] = moments(1000);
  EXPECT_NEAR(mean, exact, 4 * spread / 20 + 1e-9);
  EXPECT_LT(spread, 0.2 * std::sqrt(even_squares / 20));
}

TEST_F(SecondMoment, TheOldestLossGoes) {
  TimeSampler::Draw d{{schedule_->sigma(3)}, {1}};
  for (int i = 0; i < 13; ++i) time_->learn(*schedule_, d, at::full({1}, double(i), at::kDouble), memory_);
  EXPECT_EQ(memory_[0].tensor[3][0].item<double>(), 3);
  EXPECT_EQ(memory_[0].tensor[3][9].item<double>(), 12);
  EXPECT_EQ(memory_[1].tensor[3].item<int64_t>(), 10);
  EXPECT_EQ(memory_[1].tensor.sum().item<int64_t>(), 10);
}

}  // namespace
}  // namespace brume::test
