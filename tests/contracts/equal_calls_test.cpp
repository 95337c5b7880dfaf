// Samplers at equal numbers of network calls (conform/equal_calls.h): calls are counted, budgets are kept, and errors are distances.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

#include <cmath>

#include "brume/conform/equal_calls.h"
#include "brume/conform/exact_denoisers.h"
#include "brume/conform/sampler_runs.h"
#include "brume/core/codes.h"
#include "brume/core/spacing.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const StepLevels to_zero = [](int64_t steps) { return curved_levels_to_zero(10, 0.05, steps); };
const StepLevels not_to_zero = [](int64_t steps) { return curved_levels(10, 0.05, steps); };

StepsWithin within(const std::string& sampler, int64_t budget, const StepLevels& levels = to_zero) {
  return steps_within(*make<Sampler>(sampler), levels, *make<NoiseSchedule>("linear"), budget);
}
EqualCalls measured(const std::string& sampler, int64_t budget) { return equal_calls(*make<Sampler>(sampler), {budget}).front(); }

TEST(EqualCalls, ASamplerOfOneCallPerStep) {
  const StepsWithin run = within("ddim", 16);
  EXPECT_EQ(run.steps, 16);
  EXPECT_EQ(run.calls, 16);
}

TEST(EqualCalls, TheLastStepOfHeunToZeroIsOfFirstOrder) {
  for (const auto& [budget, steps, calls] : {std::tuple{16, 8, 15}, {15, 8, 15}, {14, 7, 13}, {1, 1, 1}}) {
    const StepsWithin run = within("heun", budget);
    EXPECT_EQ(run.steps, steps) << budget;
    EXPECT_EQ(run.calls, calls) << budget;
  }
  EXPECT_EQ(within("heun", 16, not_to_zero).steps, 8);
  EXPECT_EQ(within("heun", 16, not_to_zero).calls, 16);
}

TEST(EqualCalls, ABudgetBelowOneStep) {
  EXPECT_EQ(within("heun", 1, not_to_zero).steps, 0);
  const EqualCalls run = measured("predictor_corrector", 1);
  EXPECT_EQ(run.budget, 1);
  EXPECT_EQ(run.steps, 0);
  EXPECT_EQ(run.calls, 0);
  EXPECT_TRUE(std::isnan(run.error));
}

TEST(EqualCalls, OptionsCount) {
  EXPECT_LT(within("{type: predictor_corrector, corrections: 3}", 32).steps, within("predictor_corrector", 32).steps);
}

TEST(EqualCalls, TheErrorFallsWithTheCalls) {
  const auto runs = equal_calls(*make<Sampler>("ddim"), {8, 16, 32});
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_GT(runs[0].error, 1.5 * runs[1].error);
  EXPECT_GT(runs[1].error, 1.5 * runs[2].error);
  EXPECT_EQ(runs[2].steps, 32);
  EXPECT_EQ(runs[2].calls, 32) << "counted while the samples were made";
}

/// A solver of the ODE comes to the exact quantiles, one that adds noise to what random samples leave.
TEST(EqualCalls, TheErrorIsADistanceToTheData) {
  EXPECT_LT(measured("dpmpp_3s", 400).error, 1e-3);
  const double random = measured("ddpm", 400).error;
  EXPECT_GT(random, 5e-4);
  EXPECT_LT(random, 2e-2);
}

TEST(EqualCalls, ASamplerThatChoosesItsSteps) {
  const auto runs = equal_calls(*make<Sampler>("rk45"), {8, 16});
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].steps, 0);
  EXPECT_GT(runs[0].calls, 16);
  EXPECT_LT(runs[0].error, 1e-3);
  EXPECT_THROW(within("rk45", 8), std::logic_error);
}

TEST(EqualCalls, SamplersOfOtherModelsAreLeftOut) {
  for (const char* name : {"consistency", "lcm", "tcd", "d3pm", "mdlm", "{type: ddpm, variance: learned_range}"})
    EXPECT_NE(unsuited_for_equal_calls(*make<Sampler>(name)), "") << name;
  for (const char* name : {"ddim", "ddpm", "rk45", "restart"}) EXPECT_EQ(unsuited_for_equal_calls(*make<Sampler>(name)), "") << name;
}

TEST(Mixture, ItsQuantilesAreThoseOfItsDistribution) {
  const MixtureDenoiser gaussian = gaussian_data(), mixture = mixture_data();
  EXPECT_NEAR(gaussian.quantile(0.5), 0, 1e-12);
  EXPECT_NEAR(gaussian.quantile(0.975), 0.6 * 1.959963984540054, 1e-10);
  EXPECT_NEAR(gaussian.quantile(0.025, 0.8), -1.959963984540054, 1e-10) << "sqrt(0.6^2 + 0.8^2) = 1";
  double mean = 0, square = 0;
  const int count = 20000;
  for (int i = 0; i < count; ++i) {
    const double x = mixture.quantile((i + 0.5) / count);
    mean += x / count, square += x * x / count;
  }
  EXPECT_NEAR(mean, mixture.mean(), 1e-4);
  EXPECT_NEAR(square - mean * mean, mixture.variance(), 1e-3);
}

/// Counts the calls of a run of its own, on data N(0, 1).
class Counter final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    ++calls;
    Estimate d;
    d.x0 = x / (1 + sigma * sigma);
    return d;
  }
  mutable int64_t calls = 0;
};

class BudgetContract : public testing::TestWithParam<Specimen> {};

/// Steps are searched for by halves, which is right if a step makes a call at least and longer runs make no fewer calls.
TEST_P(BudgetContract, TheStepsAreTheMostThatFit) {
  const auto sampler = make<Sampler>(GetParam().yaml);
  if (sampler->traits().own_count) GTEST_SKIP() << "chooses the number of its steps";
  const auto schedule = make<NoiseSchedule>("linear");
  const auto spacing = make<Spacing>("trailing");
  const StepLevels levels = [&](int64_t steps) { return spacing->sigmas(*schedule, steps); };
  std::vector<int64_t> calls{0};
  for (int64_t steps = 1; steps <= 33; ++steps) {
    const Counter data;
    const Condition none;
    const auto noise = per_image_noise(0, 0), start = per_image_noise(1, 0);
    brume::Run run{none, *noise, {}, schedule.get()};
    const std::vector<double> sigmas = levels(steps);
    const Tensor x = start->draw(at::full({1, 2, 1, 1}, 1.0, at::kDouble), 1, 1) * sigmas.front();
    sampler->sample(data, x, sigmas, run);
    EXPECT_GE(data.calls, steps);
    EXPECT_GE(data.calls, calls.back()) << steps << " steps";
    calls.push_back(data.calls);
  }
  for (const int64_t budget : {5, 8, 16, 32}) {
    const StepsWithin found = steps_within(*sampler, levels, *schedule, budget);
    ASSERT_LE(found.steps, budget);
    EXPECT_LE(found.calls, budget);
    EXPECT_EQ(found.calls, calls[size_t(found.steps)]) << budget;
    EXPECT_GT(calls[size_t(found.steps) + 1], budget) << found.steps << " steps";
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, BudgetContract, testing::ValuesIn(specimens("sampler")), readable);

}  // namespace
}  // namespace brume::test
