// Parity with the tables of openai/guided-diffusion's GaussianDiffusion (shared/refs/guided_diffusion.json). brume has no such
// tables: each number is what its sampler or schedule makes of a one-number image, in float64.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "support/parity_guided.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "guided_diffusion.json";
const std::vector<int64_t> shape{4, 3, 4, 4};
constexpr double epsilon = std::numeric_limits<double>::epsilon();

Tensor number(double value) { return at::tensor({value}, at::kDouble).view({1, 1}); }

/// Always estimates the same x0.
class ConstantDenoiser final : public Denoiser {
 public:
  explicit ConstantDenoiser(double x0) : x0_(x0) {}
  Estimate denoise(const Tensor& x, double, const Condition&) const override { return {x.new_full(x.sizes(), x0_), {}, {}}; }

 private:
  double x0_;
};

/// One step of a sampler on one number, all in the sigma frame.
double step(const Sampler& sampler, double x, double x0, double noise, double from, double to) {
  FixedNoise fixed(noise);
  const Condition none;
  Run run{none, fixed, {}};
  return sampler.sample(ConstantDenoiser(x0), number(x), {from, to}, run).item<double>();
}

struct Table {
  std::vector<double> alphas_cumprod, betas, variance, coef1, coef2;
};

Table table_of(const NoiseSchedule& noise) {
  const auto small = make<Sampler>("{type: ddpm, variance: small}"), large = make<Sampler>("{type: ddpm, variance: large}");
  Table table;
  for (int64_t t = 0; t < noise.timesteps(); ++t) {
    const double from = noise.sigma(double(t)), to = t > 0 ? noise.sigma(double(t - 1)) : 0;
    const double signal = noise.signal(from), signal_to = noise.signal(to);
    table.alphas_cumprod.push_back(signal * signal);
    // The sampler adds no noise at its end, so beta_0 = 1 - alpha_bar_0 is the schedule's own.
    table.betas.push_back(t > 0 ? std::pow(signal_to * step(*large, 0, 0, 1, from, to), 2) : std::pow(from * signal, 2));
    table.variance.push_back(std::pow(signal_to * step(*small, 0, 0, 1, from, to), 2));
    table.coef1.push_back(signal_to * step(*small, 0, 1, 0, from, to));
    table.coef2.push_back(signal_to * step(*small, 1, 0, 0, from, to) / signal);
  }
  return table;
}

class GuidedSchedule : public testing::TestWithParam<std::string> {
 protected:
  static void TearDownTestSuite() { closeness.print("guided-diffusion schedules"); }
  static Closeness closeness;
};
Closeness GuidedSchedule::closeness;

// rtol is 1e-12, and what float64 itself loses: the reference computes 1 - alpha_bar_t and alpha_bar_t / alpha_bar_(t-1), so its
// own numbers are only good to epsilon / (1 - alpha_bar_t) and epsilon / beta_t (2e-12 if beta is 1e-4, and an absolute
// epsilon for log(1 - alpha_bar) near 0). brume's sigma begins with the same 1 - alpha_bar.
TEST_P(GuidedSchedule, IsReproduced) {
  const json& wanted = ref_json(file)["schedules_float64"][GetParam()];
  const size_t cut = GetParam().find('_');
  const auto noise = make<NoiseSchedule>(guided_noise(GetParam().substr(0, cut), std::stoll(GetParam().substr(cut + 1))));
  const Table table = table_of(*noise);
  const size_t n = table.betas.size();
  const auto compare = [&](const std::string& name, const auto& value, bool cancels) {
    double sum = 0, lost = 1e-12;
    for (size_t t = 0; t < n; ++t) {
      lost = std::max(lost, cancels ? 8 * epsilon / table.betas[t] : 0);
      sum += value(t);
    }
    const json& index = ref_json(file)["schedules_float64"][GetParam()]["index"];
    for (size_t i = 0; i < index.size(); ++i) {
      const size_t t = index[i];
      const double expected = wanted[name]["at"][i], rtol = 1e-12 + (cancels ? 8 * epsilon / table.betas[t] : 0);
      closeness.near(value(t), expected, rtol * std::abs(expected) + 2 * epsilon, fmt::format("{}[{}]", name, t));
    }
    closeness.near(sum, wanted[name]["sum"], lost * std::abs(sum) + 2 * epsilon * double(n), name + " sum");
  };
  const auto alpha_bar = [&](size_t t) { return table.alphas_cumprod[t]; };
  compare("alphas_cumprod", alpha_bar, false);
  compare(
      "alphas_cumprod_prev", [&](size_t t) { return t > 0 ? alpha_bar(t - 1) : 1.0; }, false);
  compare(
      "alphas_cumprod_next", [&](size_t t) { return t + 1 < n ? alpha_bar(t + 1) : 0.0; }, false);
  compare(
      "betas", [&](size_t t) { return table.betas[t]; }, true);
  compare(
      "posterior_variance", [&](size_t t) { return table.variance[t]; }, true);
  compare(
      "posterior_log_variance_clipped", [&](size_t t) { return std::log(table.variance[std::max<size_t>(t, 1)]); }, true);
  compare(
      "posterior_mean_coef1", [&](size_t t) { return table.coef1[t]; }, true);
  compare(
      "posterior_mean_coef2", [&](size_t t) { return table.coef2[t]; }, true);
  const auto sigma = [&](size_t t) { return noise->sigma(double(t)); };
  compare(
      "sqrt_recip_alphas_cumprod", [&](size_t t) { return noise->start_std(sigma(t)); }, false);
  compare("sqrt_recipm1_alphas_cumprod", sigma, true);
  compare(
      "log_one_minus_alphas_cumprod", [&](size_t t) { return -std::log1p(1 / (sigma(t) * sigma(t))); }, true);
}

std::vector<std::string> names(const char* section) {
  std::vector<std::string> found;
  if (has_ref(file))
    for (const auto& [name, value] : ref_json(file)[section].items()) found.push_back(name);
  return found;
}
INSTANTIATE_TEST_SUITE_P(Tables, GuidedSchedule, testing::ValuesIn(names("schedules_float64")),
                         [](const auto& info) { return test_name(info.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GuidedSchedule);

class GuidedSpacing : public testing::TestWithParam<std::string> {
 protected:
  static void TearDownTestSuite() { closeness.print("guided-diffusion space_timesteps"); }
  static Closeness closeness;
};
Closeness GuidedSpacing::closeness;

TEST_P(GuidedSpacing, IsReproduced) {
  const json& wanted = ref_json(file)["space_timesteps"][GetParam()];
  const size_t cut = GetParam().find(':');
  const SchedulerConfig config =
      read_guided({.training_times = std::stoll(GetParam().substr(1, cut - 1)), .respacing = GetParam().substr(cut + 1)});
  std::vector<double> sigmas = config.sigmas();
  ASSERT_EQ(sigmas.size(), wanted["n"].get<size_t>() + 1);
  EXPECT_EQ(sigmas.back(), 0);
  std::reverse(sigmas.begin(), sigmas.end());
  std::vector<double> betas, times;
  double sum = 0;
  for (size_t i = 1; i < sigmas.size(); ++i) {
    times.push_back(config.noise->time(sigmas[i]));
    betas.push_back((sigmas[i] - sigmas[i - 1]) * (sigmas[i] + sigmas[i - 1]) / (1 + sigmas[i] * sigmas[i]));
    sum += betas.back();
  }
  EXPECT_EQ(times, wanted["timesteps"].get<std::vector<double>>());
  const auto near = [&](double got, double expected, const char* what) {
    closeness.near(got, expected, (1e-12 + 8 * epsilon / betas.front()) * std::abs(expected), what);
  };
  near(sum, wanted["betas_sum"], "betas sum");
  for (size_t i = 0; i < 4; ++i) {
    near(betas[i], wanted["betas_first4"][i], "first betas");
    near(betas[betas.size() - 4 + i], wanted["betas_last4"][i], "last betas");
  }
}

INSTANTIATE_TEST_SUITE_P(Respacings, GuidedSpacing, testing::ValuesIn(names("space_timesteps")),
                         [](const auto& info) { return test_name(info.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GuidedSpacing);

/// Image i of each at its own timestep.
class GuidedPredict : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(file);
    noise = make<NoiseSchedule>(guided_noise("linear", 1000));
    for (const char* name : {"x_start", "noise", "x_t"}) inputs[name] = tensor_of(ref_json(file)["inputs"][name], shape);
  }
  Tensor image(const char* name, int64_t i) const { return inputs.at(name)[i]; }
  /// f(i, sigma of image i's timestep), stacked.
  Tensor each(const std::function<Tensor(int64_t, double)>& f) const {
    std::vector<Tensor> images;
    for (int64_t i = 0; i < 4; ++i) images.push_back(f(i, noise->sigma(ref_json(file)["q_sample"]["t"][size_t(i)])));
    return at::stack(images);
  }
  std::shared_ptr<const NoiseSchedule> noise;
  std::map<std::string, Tensor> inputs;
  Closeness closeness;
};

TEST_F(GuidedPredict, QSample) {
  const Tensor got = each([&](int64_t i, double s) { return (image("x_start", i) + image("noise", i) * s) * noise->signal(s); });
  closeness.near(got, ref_json(file)["q_sample"]["out"], 1e-6, "q_sample");
  const json& wanted = ref_json(file)["q_mean_variance"];
  closeness.summary(each([&](int64_t i, double s) { return image("x_start", i) * noise->signal(s); }), wanted[0], 1e-6, "mean");
  const auto variance = [&](double s) { return s * s / (1 + s * s); };
  closeness.summary(each([&](int64_t, double s) { return at::full({3, 4, 4}, variance(s)); }), wanted[1], 1e-6, "variance");
  closeness.summary(each([&](int64_t, double s) { return at::full({3, 4, 4}, std::log(variance(s))); }), wanted[2], 1e-6, "log variance");
  closeness.print("guided-diffusion q_sample");
}

TEST_F(GuidedPredict, BetweenXstartEpsAndXprev) {
  const auto eps = make<Parameterization>("eps");
  const Tensor xstart = each([&](int64_t i, double s) {
    const Tensor x = image("x_t", i) / noise->signal(s);
    return x * eps->c_skip(s) + image("noise", i) * eps->c_out(s);
  });
  closeness.summary(xstart, ref_json(file)["predict"]["xstart_from_eps"], 2e-5, 1e-6, "xstart_from_eps");
  const Tensor noises = each([&](int64_t i, double s) {
    const Tensor x = image("x_t", i) / noise->signal(s);
    return (image("x_start", i) - x * eps->c_skip(s)) / eps->c_out(s);
  });
  closeness.summary(noises, ref_json(file)["predict"]["eps_from_xstart"], 2e-5, 1e-6, "eps_from_xstart");
  const auto ddpm = make<Sampler>("ddpm");
  const Tensor from_prev = each([&](int64_t i, double s) {
    const double t = noise->time(s), to = t > 0 ? noise->sigma(t - 1) : 0;
    const double of_x0 = step(*ddpm, 0, 1, 0, s, to), of_x = step(*ddpm, 1, 0, 0, s, to);
    return (image("noise", i) / noise->signal(to) - image("x_t", i) / noise->signal(s) * of_x) / of_x0;
  });
  closeness.summary(from_prev, ref_json(file)["predict"]["xstart_from_xprev"], 2e-5, 1e-6, "xstart_from_xprev");
  closeness.print("guided-diffusion predict");
}

TEST(GuidedTimestepEmbedding, IsTheSinusoidalPlugin) {
  BRUME_NEED_REF(file);
  const json& wanted = ref_json(file)["timestep_embedding"];
  const auto embedding = make<NoiseEmbedding>(fmt::format("{{type: sinusoidal, max_period: {}}}", wanted["max_period"].get<double>()));
  at::Generator unused = at::detail::createCPUGenerator(0);
  const Tensor frequencies = embedding->frequencies(wanted["dim"], unused);
  const auto times = wanted["t"].get<std::vector<float>>();
  Closeness closeness;
  closeness.near(embedding->features(at::tensor(times), frequencies), wanted["out"], 1e-5, "features");
  closeness.print("guided-diffusion timestep_embedding (the odd width 33, padded with a zero there, is refused by brume)");
}

}  // namespace
}  // namespace brume::test
