// Every noise schedule: sigma rises with t, time is its inverse, and the frame it names is consistent.
#include <algorithm>
#include <cmath>

#include "brume/core/noise_schedule.h"
#include "support/registry.h"

namespace brume::test {
namespace {

class NoiseScheduleContract : public testing::TestWithParam<Specimen> {
 protected:
  std::shared_ptr<const NoiseSchedule> schedule_ = make<NoiseSchedule>(GetParam().yaml);
  /// Times over the whole range: its ends, its integers where it is discrete, and between.
  std::vector<double> times() const {
    const double lo = schedule_->t_min(), hi = schedule_->t_max();
    std::vector<double> t;
    for (int i = 0; i <= 2000; ++i) t.push_back(lo + (hi - lo) * i / 2000);
    for (int64_t i = 0; i < schedule_->timesteps(); ++i) t.push_back(double(i));
    std::sort(t.begin(), t.end());
    t.erase(std::unique(t.begin(), t.end()), t.end());
    return t;
  }
};

TEST_P(NoiseScheduleContract, SigmaRisesWithTime) {
  double last = 0;
  for (const double t : times()) {
    const double sigma = schedule_->sigma(t);
    ASSERT_TRUE(std::isfinite(sigma) && sigma > last) << "sigma(" << t << ") = " << sigma << " after " << last;
    last = sigma;
  }
}

TEST_P(NoiseScheduleContract, TimeIsTheInverseOfSigma) {
  for (const double t : times()) ASSERT_NEAR(schedule_->time(schedule_->sigma(t)), t, 1e-9 * std::max(1.0, schedule_->t_max())) << t;
}

TEST_P(NoiseScheduleContract, TimeIsClampedToItsRange) {
  const double lo = schedule_->sigma(schedule_->t_min()), hi = schedule_->sigma(schedule_->t_max());
  EXPECT_EQ(schedule_->time(lo / 2), schedule_->t_min());
  EXPECT_EQ(schedule_->time(0), schedule_->t_min());
  EXPECT_EQ(schedule_->time(hi * 2), schedule_->t_max());
  EXPECT_EQ(schedule_->time(1e300), schedule_->t_max());
}

TEST_P(NoiseScheduleContract, ItsTimesAreCounted) {
  if (schedule_->timesteps() == 0) {
    EXPECT_LT(schedule_->t_min(), schedule_->t_max());
  } else {
    EXPECT_EQ(schedule_->t_min(), 0);
    EXPECT_EQ(schedule_->t_max(), double(schedule_->timesteps() - 1));
  }
}

TEST_P(NoiseScheduleContract, BetweenIntegersLogSigmaIsLinear) {
  for (int64_t i = 0; i + 1 < schedule_->timesteps(); i += 37) {
    const double a = std::log(schedule_->sigma(double(i))), b = std::log(schedule_->sigma(double(i + 1)));
    EXPECT_NEAR(std::log(schedule_->sigma(double(i) + 0.25)), 0.75 * a + 0.25 * b, 1e-12) << i;
  }
}

TEST_P(NoiseScheduleContract, TheFrameIsConsistent) {
  for (const double t : times()) {
    const double sigma = schedule_->sigma(t), signal = schedule_->signal(sigma), start = schedule_->start_std(sigma);
    ASSERT_GT(signal, 0);
    ASSERT_LE(signal, 1);
    // Sampling starts from N(0, 1) in the network's frame, or, where that is the image's own, from the noise alone.
    if (signal < 1)
      ASSERT_NEAR(signal * start, 1, 1e-12) << "at sigma " << sigma;
    else
      ASSERT_EQ(start, sigma);
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, NoiseScheduleContract,
                         testing::ValuesIn(specimens("noise_schedule",
                                                     {"{type: linear, timesteps: 50, rescale: true}", "{type: linear, timesteps: 2}",
                                                      "{type: cosine, timesteps: 4000}", "{type: cosine, timesteps: 10}",
                                                      "{type: angle, min_signal: 0.001, max_signal: 0.999}", "{type: flow, shift: 3}",
                                                      "{type: zero_terminal_snr, schedule: cosine}", "{type: vp, epsilon: 1.0e-05}"})),
                         readable);

}  // namespace
}  // namespace brume::test
