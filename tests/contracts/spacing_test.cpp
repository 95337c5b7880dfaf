// Every spacing on several schedules: steps + 1 descending sigmas within the schedule's range, or a ConfigError.
#include <fmt/format.h>

#include <cmath>
#include <set>

#include "brume/core/spacing.h"
#include "support/laws.h"
#include "support/registry.h"

namespace brume::test {
namespace {

struct Case {
  Specimen spacing;
  std::string schedule;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.spacing.yaml << " on " << c.schedule; }

const char* const schedules[] = {
    "linear", "cosine", "angle", "scaled_linear", "edm", "flow", "{type: linear, timesteps: 100, rescale: true}"};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Specimen& s :
       specimens("spacing", {"{type: leading, offset: 1}", "{type: leading, final: minimum}", "{type: trailing, final: minimum}",
                             "{type: linspace, round: false}", "{type: karras, rho: 3, sigma_min: 0.5, sigma_max: 7}",
                             "{type: linspace, inclusive: false}", "{type: leading, inclusive: false}",
                             "{type: linspace, round: false, interpolation: sigma}", "{type: karras, inclusive: false, final: minimum}",
                             "{type: karras, levels: 120, final: minimum}", "{type: exponential, rho: 0.7}", "{type: flow, shift: 5}",
                             "{type: flow, mu: 0.8, curve: beta}", "{type: flow, curve: karras}"}))
    for (const char* schedule : schedules) all.push_back({s, schedule});
  return all;
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.spacing.label + "_on_";
  for (const char c : info.param.schedule)
    if (std::isalnum(static_cast<unsigned char>(c))) name += c;
  return name;
}

class SpacingContract : public testing::TestWithParam<Case> {
 protected:
  std::shared_ptr<const NoiseSchedule> schedule_ = make<NoiseSchedule>(GetParam().schedule);
  /// The spacing, set for this number of steps if it is a list.
  std::shared_ptr<const Spacing> spacing(int64_t steps) const {
    if (GetParam().spacing.name != "explicit") return make<Spacing>(GetParam().spacing.yaml);
    std::string times;
    for (int64_t i = 0; i < steps; ++i) times += fmt::format("{}{}", i ? ", " : "", schedule_->t_max() * double(steps - i) / double(steps));
    return make<Spacing>("{type: explicit, times: [" + times + "]}");
  }
  double lo() const { return schedule_->sigma(schedule_->t_min()); }
  double hi() const { return schedule_->sigma(schedule_->t_max()); }
  /// Spacings that round to levels refuse numbers of steps at which two coincide.
  bool rounds() const {
    const std::string& name = GetParam().spacing.name;
    return name.starts_with("beta") || name == "smoothstep" || name == "laplace";
  }
  /// Spacings that are meant for some schedules only say so.
  bool is_refused() const {
    const std::string& name = GetParam().spacing.name;
    const std::set<std::string> particular{"ays", "flow", "gits", "lcm", "optimal_steps"};
    if (!particular.contains(name)) return false;
    return error_of([&] { spacing(1)->sigmas(*schedule_, 1), spacing(10)->sigmas(*schedule_, 10); }) != "no error";
  }
};

TEST_P(SpacingContract, StepsPlusOneDescendingSigmas) {
  if (is_refused()) GTEST_SKIP() << "not for this schedule";
  for (const int64_t steps : {1, 2, 10, 50}) {
    SCOPED_TRACE(steps);
    if (rounds() && error_of([&] { spacing(steps)->sigmas(*schedule_, steps); }) != "no error") continue;  // levels coincide
    const std::vector<double> s = spacing(steps)->sigmas(*schedule_, steps);
    ASSERT_EQ(s.size(), size_t(steps) + 1);
    for (size_t i = 0; i + 2 < s.size(); ++i) EXPECT_GT(s[i], s[i + 1]) << i;
    const bool asked_to_leave = GetParam().spacing.yaml.find("sigma_min") != std::string::npos;
    for (size_t i = 0; i + 1 < s.size() && !asked_to_leave; ++i) {  // those the denoiser is asked at
      EXPECT_GE(s[i], lo() * (1 - 1e-9)) << i;
      EXPECT_LE(s[i], hi() * (1 + 1e-9)) << i;
    }
    const double last = s.back();  // 0, or the schedule's smallest, if the last step may stand still
    EXPECT_TRUE(last == 0 || last == lo()) << last;
    EXPECT_GE(s[s.size() - 2], last);
    EXPECT_GT(s[s.size() - 2], 0);
  }
}

TEST_P(SpacingContract, KeepsItsLaws) {
  if (GetParam().spacing.name == "explicit") GTEST_SKIP() << "a list has one number of steps";
  expect_to_hold(conform(*spacing(1), *schedule_));
}

INSTANTIATE_TEST_SUITE_P(Registry, SpacingContract, testing::ValuesIn(cases()), name_of);

std::string spacing_error(const std::string& spacing, const std::string& schedule, int64_t steps) {
  return error_of([&] { make<Spacing>(spacing)->sigmas(*make<NoiseSchedule>(schedule), steps); });
}

TEST(Spacings, MoreStepsThanTrainingTimes) {
  const std::string twenty = "{type: linear, timesteps: 20}";
  const std::string said = "50 steps are more than this spacing can take from 20 training times";
  EXPECT_EQ(spacing_error("linspace", twenty, 50), said);
  EXPECT_EQ(spacing_error("leading", twenty, 50), said);
  EXPECT_EQ(spacing_error("trailing", twenty, 50), said);
  EXPECT_EQ(spacing_error("linspace", twenty, 20), "no error");
  EXPECT_EQ(spacing_error("leading", twenty, 20), "no error");
  EXPECT_EQ(spacing_error("trailing", twenty, 20), "no error");
  EXPECT_EQ(spacing_error("{type: linspace, round: false}", twenty, 50), "no error");
  EXPECT_EQ(spacing_error("karras", twenty, 50), "no error");
}

TEST(Spacings, OutsideTheSchedule) {
  EXPECT_EQ(spacing_error("{type: leading, offset: 1000}", "linear", 10), "time 1900 is outside the schedule's [0, 999]");
  EXPECT_EQ(spacing_error("{type: explicit, times: [1000, 5]}", "linear", 2), "time 1000 is outside the schedule's [0, 999]");
  EXPECT_EQ(spacing_error("{type: explicit, times: [999, 5]}", "linear", 3),
            "the list has 2 entries and steps is 3; they must agree, or interpolate be true");
  EXPECT_EQ(spacing_error("{type: karras, sigma_min: 1000}", "linear", 3), "sigma_min 1000 is outside the schedule's [0.0100005, 157.407]");
  EXPECT_EQ(spacing_error("{type: exponential, sigma_max: 500}", "linear", 3),
            "sigma_max 500 is outside the schedule's [0.0100005, 157.407]");
  EXPECT_EQ(spacing_error("{type: karras, sigma_min: 3, sigma_max: 2}", "linear", 3),
            "test.yaml:1:27: spacing: sigma_min: must be less than sigma_max");
  EXPECT_EQ(spacing_error("{type: explicit, times: [1, 5]}", "linear", 2), "test.yaml:1:25: spacing: times: must descend");
  EXPECT_EQ(spacing_error("{type: explicit, times: [5, 1], sigmas: [2]}", "linear", 2),
            "test.yaml:1:41: spacing: sigmas: give times or sigmas, not both");
}

// Lin et al. 2024, table 2, at T = 1000 and 10 steps.
TEST(Spacings, TheTimesOfThePaper) {
  const auto linear = make<NoiseSchedule>("linear");
  const auto times = [&](const std::string& spacing) {
    std::vector<long> t;
    for (const double sigma : make<Spacing>(spacing)->sigmas(*linear, 10))
      if (sigma > 0) t.push_back(std::lround(linear->time(sigma)));
    return t;
  };
  EXPECT_EQ(times("leading"), (std::vector<long>{900, 800, 700, 600, 500, 400, 300, 200, 100, 0}));
  EXPECT_EQ(times("{type: leading, offset: 1}"), (std::vector<long>{901, 801, 701, 601, 501, 401, 301, 201, 101, 1}));
  EXPECT_EQ(times("trailing"), (std::vector<long>{999, 899, 799, 699, 599, 499, 399, 299, 199, 99}));
  EXPECT_EQ(times("linspace"), (std::vector<long>{999, 888, 777, 666, 555, 444, 333, 222, 111, 0}));
}

std::vector<long> times_of(const std::string& spacing, const std::string& schedule, int64_t steps) {
  const auto noise = make<NoiseSchedule>(schedule);
  std::vector<long> t;
  for (const double sigma : make<Spacing>(spacing)->sigmas(*noise, steps))
    if (sigma > 0) t.push_back(std::lround(noise->time(sigma)));
  return t;
}

// range(0, 1000, 1000 // 6) + 1 of CompVis' make_ddim_timesteps has 7 entries; of 3 steps the fourth is no training time.
TEST(Spacings, LeadingFillsWhatTheStrideReaches) {
  EXPECT_EQ(times_of("{type: leading, offset: 1, fill: true}", "linear", 6), (std::vector<long>{997, 831, 665, 499, 333, 167, 1}));
  EXPECT_EQ(times_of("{type: leading, offset: 1, fill: true}", "linear", 3), (std::vector<long>{667, 334, 1}));
  EXPECT_EQ(times_of("{type: leading, offset: 1, fill: true}", "linear", 5), times_of("{type: leading, offset: 1}", "linear", 5));
  // More steps than training times: the error of the spacing without `fill`.
  EXPECT_EQ(spacing_error("{type: leading, fill: true}", "linear", 1001), spacing_error("leading", "linear", 1001));
  EXPECT_NE(spacing_error("leading", "linear", 1001), "no error");
  // The end of the steps, of which `fill` makes one more.
  EXPECT_NEAR(make<Spacing>("{type: karras, ends_of: {spacing: {type: leading, offset: 1, fill: true}}}")
                  ->sigmas(*make<NoiseSchedule>("linear"), 6)
                  .at(5),
              make<NoiseSchedule>("linear")->sigma(1), 1e-9);
}

// lcm_origin_timesteps of diffusers with strength 0.6: 30 times from 599 on.
TEST(Spacings, LcmTakesAShareOfItsSteps) {
  EXPECT_EQ(times_of("{type: lcm, share: 0.6}", "linear", 4), (std::vector<long>{599, 459, 299, 159}));
  EXPECT_EQ(spacing_error("{type: lcm, share: 0.1}", "linear", 6),
            "6 steps are more than the 5 that the share 0.1 leaves of original_steps 50");
}

// DPM-Solver's clipping: lambda = -log sigma is at least -1, as it is up to a training time of the schedule.
TEST(Spacings, LargestSigma) {
  const auto linear = make<NoiseSchedule>("linear");
  long last = 999;
  while (linear->sigma(double(last)) > std::exp(1)) --last;
  const std::string bound = fmt::format("sigma_max: {}", std::exp(1));
  EXPECT_EQ(times_of("{type: linspace, " + bound + "}", "linear", 2), (std::vector<long>{last, 0}));
  EXPECT_EQ(times_of("{type: leading, " + bound + "}", "linear", 4),
            (std::vector<long>{(last + 1) / 4 * 3, (last + 1) / 4 * 2, (last + 1) / 4, 0}));
  EXPECT_EQ(spacing_error("{type: linspace, sigma_max: 0.001}", "linear", 4),
            "sigma_max 0.001 leaves no training time: the schedule's sigmas begin at 0.0100005");
}

TEST(Spacings, AListEndsWhereItSays) {
  const auto linear = make<NoiseSchedule>("linear");
  EXPECT_EQ(make<Spacing>("{type: explicit, sigmas: [10, 1], end: 0.5}")->sigmas(*linear, 2), (std::vector<double>{10, 1, 0.5}));
  EXPECT_EQ(spacing_error("{type: explicit, sigmas: [10, 1], end: 2}", "linear", 2), "end 2 is above the last level 1");
}

TEST(Spacings, OneStepBetweenTheEndsOfAnother) {
  for (const char* type : {"karras", "exponential", "beta"}) {
    const auto spacing = make<Spacing>(fmt::format("{{type: {}, ends_of: {{spacing: trailing}}}}", type));
    EXPECT_EQ(spacing->sigmas(*make<NoiseSchedule>("linear"), 1), make<Spacing>("trailing")->sigmas(*make<NoiseSchedule>("linear"), 1));
  }
}

}  // namespace
}  // namespace brume::test
