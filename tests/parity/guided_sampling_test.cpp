// Parity with the sampling of openai/guided-diffusion (shared/refs/guided_diffusion.json): p_mean_variance, and whole
// trajectories of p_sample, ddim_sample and ddim_reverse_sample.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "support/models.h"
#include "support/parity_guided.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "guided_diffusion.json";
const std::vector<int64_t> shape{4, 3, 4, 4};

std::vector<size_t> indices(const char* section) {
  std::vector<size_t> all(has_ref(file) ? ref_json(file)[section].size() : 0);
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}

GuidedProcess process_of(const json& c) {
  return {.schedule = c["schedule"],
          .mean_type = c["mean_type"],
          .var_type = c["var_type"],
          .training_times = c["T"],
          .respacing = c.value("respacing", ""),
          .clip = c["clip_denoised"],
          .ddim = c.value("kind", "p") != "p",
          .cond = c.value("cond", false),
          .eta = c.value("eta", 0.0)};
}

class GuidedMeanVariance : public testing::TestWithParam<size_t> {
 protected:
  static void TearDownTestSuite() { closeness.print("guided-diffusion p_mean_variance"); }
  static Closeness closeness;
};
Closeness GuidedMeanVariance::closeness;

struct Moments {
  std::vector<Tensor> mean, variance, x0;
};

/// The sampler's step at each image's timestep with noise 0 gives the mean, with noise 1 the standard deviation on top.
Moments moments_of(const json& c) {
  const SchedulerConfig config = read_guided(process_of(c));
  const Tensor x = tensor_of(ref_json(file)["inputs"]["x_t"], shape, at::kDouble);
  const auto denoiser = std::make_shared<ScriptedDenoiser>(guided_network(c["var_type"]), config);
  Moments moments;
  for (size_t i = 0; i < 4; ++i) {
    const double t = c["t"][i], from = config.noise->sigma(t), to = t > 0 ? config.noise->sigma(t - 1) : 0;
    FixedNoise zero(0), one(1);
    const Tensor image = x.narrow(0, int64_t(i), 1);
    const Trajectory mean = run(config, denoiser, image, {from, to}, zero), above = run(config, denoiser, image, {from, to}, one);
    moments.mean.push_back(mean.x[0][0]);
    moments.variance.push_back((above.x[0] - mean.x[0]).pow(2)[0]);
    moments.x0.push_back(c["clip_denoised"].get<bool>() ? mean.x0[0][0].clamp(-1, 1) : mean.x0[0][0]);
  }
  return moments;
}

/// `first`: the first image to compare.
void compare_images(Closeness& closeness, const std::vector<Tensor>& got, const json& wanted, size_t first, double scale,
                    const std::string& what) {
  for (size_t i = first; i < 4; ++i) {
    const double tolerance = 2e-5 * std::max(std::abs(wanted["per_sample_sum"][i].get<double>()) / 48, scale) + 1e-6;
    closeness.near(got[i].sum().item<double>(), wanted["per_sample_sum"][i], 48 * tolerance, fmt::format("{} of image {}", what, i));
  }
  const auto elements = [&](const Tensor& t, const char* key) {
    const json& values = wanted[key];
    double largest = 0;
    for (const json& v : values) largest = std::max(largest, std::abs(v.get<double>()));
    closeness.near(t, values, 2e-5 * largest + 1e-6, what + " " + key);
  };
  if (first == 0) elements(got[0], "first8");
  elements(got[1], "sample1_first8");
  elements(got[3].contiguous().view(-1).narrow(0, 44, 4), "last4");
}

TEST_P(GuidedMeanVariance, IsThatOfTheSampler) {
  const json& c = ref_json(file)["p_mean_variance"][GetParam()];
  const Moments got = moments_of(c);
  compare_images(closeness, got.mean, c["mean"], 0, 1, "mean");
  // At t = 0 the run ends: the sampler adds no noise, and guided-diffusion masks out the variance it has there.
  compare_images(closeness, got.variance, c["variance"], 1, 0, "variance");
  std::vector<Tensor> logs;
  for (const Tensor& v : got.variance) logs.push_back(v.log());
  compare_images(closeness, logs, c["log_variance"], 1, 1, "log variance");
  compare_images(closeness, got.x0, c["pred_xstart"], 0, 1, "pred_xstart");
}

std::string mean_variance_name(const testing::TestParamInfo<size_t>& info) {
  const json& c = ref_json(file)["p_mean_variance"][info.param];
  return test_name(fmt::format("{}_{}_{}_{}_{}", info.param, c["mean_type"].get<std::string>(), c["var_type"].get<std::string>(),
                               c["schedule"].get<std::string>(), c["clip_denoised"].get<bool>() ? "clip" : "free"));
}
INSTANTIATE_TEST_SUITE_P(Cases, GuidedMeanVariance, testing::ValuesIn(indices("p_mean_variance")), mean_variance_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GuidedMeanVariance);

/// Images `first` and on are asked to be of classes `first` and on.
Condition classes_in_turn(int64_t first, int64_t count) {
  Condition condition;
  condition.labels = at::arange(first, first + count, at::kLong);
  return condition;
}

/// condition_mean of guided-diffusion, mean + variance * gradient: of the process that is EPSILON, FIXED_SMALL, linear, unclipped.
TEST(GuidedConditionMean, IsThatOfTheSampler) {
  BRUME_NEED_REF(file);
  const json& ref = ref_json(file);
  const SchedulerConfig config = read_guided({.cond = true});
  const auto told = [&](double sigma) { return config.noise->time(sigma); };
  const auto denoiser = std::make_shared<ScriptedDenoiser>(guided_network("FIXED_SMALL"), config);
  const GivenModels models(std::make_shared<GuidedClassifier>(config.noise, told));
  const Tensor x = tensor_of(ref["inputs"]["x_t"], shape, at::kDouble);
  const std::vector<double> times{0, 7, 500, 999};
  std::vector<Tensor> means;
  for (size_t i = 0; i < 4; ++i) {
    const double from = config.noise->sigma(times[i]), to = times[i] > 0 ? config.noise->sigma(times[i] - 1) : 0;
    FixedNoise zero(0);
    means.push_back(run(config, denoiser, x.narrow(0, int64_t(i), 1), {from, to}, zero, classes_in_turn(int64_t(i), 1), models).x[0][0]);
  }
  Closeness closeness;
  closeness.summary(at::stack(means), ref["condition_mean"], 2e-5, 1e-6, "condition_mean");
  closeness.print("guided-diffusion condition_mean");
}

class GuidedTrajectory : public testing::TestWithParam<size_t> {
 protected:
  static void TearDownTestSuite() { closeness.print("guided-diffusion trajectories"); }
  static Closeness closeness;
};
Closeness GuidedTrajectory::closeness;

TEST_P(GuidedTrajectory, IsReproduced) {
  const json& c = ref_json(file)["trajectories"][GetParam()];
  const SchedulerConfig config = read_guided(process_of(c));
  std::vector<double> sigmas = config.sigmas();
  ASSERT_EQ(sigmas.size(), c["steps"].size() + 1);
  if (c["kind"] == "ddim_reverse") {  // from the first training time up, and one step beyond the last, to pure noise
    sigmas.pop_back();
    std::reverse(sigmas.begin(), sigmas.end());
    sigmas.push_back(1e6);
  }
  const double scale = c["rescale_timesteps"].get<bool>() ? 1000 / c["T"].get<double>() : 1;
  const auto told = [&](double sigma) { return scale * config.noise->time(sigma); };
  const auto denoiser = std::make_shared<ScriptedDenoiser>(guided_network(c["var_type"]), config, VarianceOutput::as_brume, told);
  const Tensor x = tensor_of(ref_json(file)["inputs"][c["start"] == "noise" ? "noise" : "x_start"], shape);
  const auto noise = batch_noise(c["seed"]);
  const GivenModels models(std::make_shared<GuidedClassifier>(config.noise, told));
  const Trajectory got = run(config, denoiser, x, sigmas, *noise, classes_in_turn(0, 4), models);

  ASSERT_EQ(got.x.size(), c["steps"].size());
  const auto tolerance = [](const Tensor& t) { return 5e-5 * std::max(1.0, t.abs().max().item<double>()); };
  for (size_t i = 0; i < got.x.size(); ++i) {
    const json& step = c["steps"][i];
    closeness.summary(got.x[i], step, tolerance(got.x[i]), fmt::format("step {}", i));
    const Tensor x0 = c["mean_type"] == "PREVIOUS_X" && c["clip_denoised"].get<bool>() ? got.x0[i].clamp(-1, 1) : got.x0[i];
    closeness.summary(x0, {{"sum_abs", step["pred_xstart_sum_abs"]}}, tolerance(x0), fmt::format("step {} x0", i));
  }
  closeness.near(got.x.back(), c["final"], tolerance(got.x.back()), "final");
}

std::string trajectory_name(const testing::TestParamInfo<size_t>& info) {
  const json& c = ref_json(file)["trajectories"][info.param];
  return test_name(fmt::format("{}_{}_{}_{}{}", info.param, c["kind"].get<std::string>(), c["respacing"].get<std::string>(),
                               c["var_type"].get<std::string>(), c["cond"].get<bool>() ? "_cond" : ""));
}
INSTANTIATE_TEST_SUITE_P(Cases, GuidedTrajectory, testing::ValuesIn(indices("trajectories")), trajectory_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GuidedTrajectory);

TEST(GuidedReferences, AreThere) { BRUME_NEED_REF(file); }

}  // namespace
}  // namespace brume::test
