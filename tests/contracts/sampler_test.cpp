// Every sampler, on the exact denoiser of a Gaussian, in float64. Deterministic ones solve the probability-flow ODE at their
// declared order and run backwards; those that add noise end with the right distribution; all are values.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <thread>

#include "brume/core/codes.h"
#include "brume/core/sampler.h"
#include "support/gaussian.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);

class SamplerContract : public testing::TestWithParam<Specimen> {
 protected:
  static constexpr double s_ = 0.6;
  std::shared_ptr<const Sampler> sampler_ = make<Sampler>(GetParam().yaml);
  GaussianDenoiser denoiser_{s_};
  std::shared_ptr<const NoiseSchedule> schedule_ = make<NoiseSchedule>("linear");
  bool deterministic() const { return sampler_->traits().order > 0; }
  /// Samplers with an adaptive step: their error follows from a tolerance, not from the number of steps.
  bool adaptive() const { return GetParam().name == "dpm_adaptive" || GetParam().name == "rk45"; }

  Tensor run(const Tensor& x, const std::vector<double>& sigmas, uint64_t seed = 1, int64_t first = 0,
             std::function<bool(const Step&)> observer = {}) const {
    const Condition none;
    const auto noise = per_image_noise(seed, first);
    brume::Run run{none, *noise, std::move(observer), schedule_.get()};
    return sampler_->sample(denoiser_, x, sigmas, run);
  }
  /// The relative error at the end of the ODE.
  double error(double from, double to, int64_t steps) const {
    const double x = run(at::full({1, 1}, from, f64), curved(from, to, steps)).item<double>();
    return std::abs(x / (from * denoiser_.flow(from, to)) - 1);
  }
};

TEST_P(SamplerContract, ConvergesAtItsDeclaredOrder) {
  if (!deterministic()) GTEST_SKIP() << "adds noise";
  if (adaptive()) GTEST_SKIP() << "its step is adaptive";
  const int order = sampler_->traits().order;
  for (const auto& [from, to] : {std::pair(10.0, 0.05), std::pair(2.0, 0.3)}) {
    // error * steps^order does not grow. (Single ratios of errors mislead if the error changes its sign.)
    double most = 0, last = 0, error_there = 0;
    for (const double steps : {60, 120, 240, 480, 960}) {
      error_there = error(from, to, int64_t(steps));
      last = error_there * std::pow(steps, order);
      if (steps < 960) most = std::max(most, last);
    }
    if (error_there >= 1e-13) {
      EXPECT_LE(last, 1.5 * most) << "from " << from << " to " << to << ", error " << error_there;
    }
  }
}

TEST_P(SamplerContract, EndsAtTheExactSolution) {
  if (!deterministic()) GTEST_SKIP() << "adds noise";
  EXPECT_LT(error(10, 0.05, 2000), adaptive() ? 0.1 : 1e-2);
  if (!adaptive()) {
    EXPECT_LT(error(10, 0.05, 2000), error(10, 0.05, 50));
  }
}

TEST_P(SamplerContract, AscendingSigmasInvert) {
  if (!deterministic()) GTEST_SKIP() << "adds noise";
  const auto round_trip = [&](int64_t steps) {
    std::vector<double> down = curved(10, 0.05, steps), up(down.rbegin(), down.rend());
    return std::abs(run(run(at::full({1, 1}, 0.37, f64), up), down).item<double>() / 0.37 - 1);
  };
  const double coarse = round_trip(200), fine = round_trip(800);
  EXPECT_LT(fine, adaptive() ? 0.1 : 3e-2);
  EXPECT_TRUE(fine < coarse || fine < 1e-6 || adaptive()) << coarse << " -> " << fine;
}

TEST_P(SamplerContract, EndsWithTheDistributionOfTheData) {
  if (deterministic()) GTEST_SKIP() << "covered by the exact solution";
  if (sampler_->traits().consistency) GTEST_SKIP() << "the mean of the data is no consistency function";
  const int64_t images = 20, pixels = 5000;
  const double count = double(images * pixels);
  // repaint walks every stretch ten times, and the bias of its steps adds up.
  std::vector<double> sigmas = curved(50, 0.01, 500);
  sigmas.push_back(0);
  const auto noise = per_image_noise(7, 100);
  const Tensor start = noise->draw(at::zeros({images, pixels}, f64), 50, 50) * std::hypot(50, s_);
  const Tensor x = run(start, sigmas, 11);
  const double mean = x.mean().item<double>(), variance = (x * x).mean().item<double>() - mean * mean;
  // Five standard errors; the variance has the bias of the steps besides.
  EXPECT_NEAR(mean, 0, 5 * s_ / std::sqrt(count));
  EXPECT_NEAR(variance / (s_ * s_), 1, 5 * std::sqrt(2 / count) + 0.03);
  EXPECT_NEAR((x.pow(4).mean().item<double>()) / (3 * variance * variance), 1, 5 * std::sqrt(96.0 / 9 / count));  // Gaussian still
}

TEST_P(SamplerContract, FreshNoiseIsUsed) {
  if (deterministic()) {
    EXPECT_TRUE(
        at::equal(run(at::full({2, 3}, 5.0, f64), curved(10, 0.1, 10), 1), run(at::full({2, 3}, 5.0, f64), curved(10, 0.1, 10), 2)));
  } else {
    EXPECT_FALSE(
        at::equal(run(at::full({2, 3}, 5.0, f64), curved(10, 0.1, 10), 1), run(at::full({2, 3}, 5.0, f64), curved(10, 0.1, 10), 2)));
  }
}

TEST_P(SamplerContract, ImageIDoesNotDependOnItsBatch) {
  std::vector<double> sigmas = curved(10, 0.05, 12);
  sigmas.push_back(0);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const Tensor x = per_image_noise(3, 0)->draw(at::zeros({5, 2, 7, 7}, at::TensorOptions().dtype(type)), 1, 1) * 10;
    const Tensor together = run(x, sigmas, 4, 0);
    EXPECT_EQ(together.scalar_type(), type);
    EXPECT_EQ(together.sizes(), x.sizes());
    for (int64_t i = 0; i < 5; ++i) EXPECT_TRUE(at::equal(run(x.narrow(0, i, 1), sigmas, 4, i), together.narrow(0, i, 1))) << i;
  }
}

TEST_P(SamplerContract, EightThreadsAtOnce) {
  std::vector<double> sigmas = curved(10, 0.05, 30);
  sigmas.push_back(0);
  const auto one = [&](int64_t i) { return run(at::full({3, 2, 9, 9}, double(i), f64), sigmas, uint64_t(i)); };
  std::vector<Tensor> serial, parallel(8);
  for (int64_t i = 0; i < 8; ++i) serial.push_back(one(i));
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < 8; ++i) threads.emplace_back([&, i] { parallel[size_t(i)] = one(i); });
  for (std::thread& t : threads) t.join();
  for (size_t i = 0; i < 8; ++i) EXPECT_TRUE(at::equal(serial[i], parallel[i])) << i;
}

TEST_P(SamplerContract, OneStep) {
  const Tensor x = at::linspace(-20, 20, 8, f64).view({2, 4});
  const Tensor y = run(x, {10, 0});
  EXPECT_EQ(y.sizes(), x.sizes());
  EXPECT_TRUE(at::isfinite(y).all().item<bool>());
  // At sigma = 0 there is no noise left: what remains is about the size of the estimate.
  if (GetParam().yaml.find("time:") == std::string::npos && GetParam().name != "stork_4") {  // in other frames one step goes elsewhere
    EXPECT_LT(y.abs().max().item<double>(), 1);
  }
}

TEST_P(SamplerContract, TheObserverSeesEachStepOnce) {
  if (sampler_->traits().own_steps) GTEST_SKIP() << "its steps are its own";
  if (GetParam().name == "restart") GTEST_SKIP() << "it walks an interval several times";
  std::vector<double> sigmas = curved(10, 0.05, 9), seen;
  sigmas.push_back(0);
  const Tensor x = at::linspace(-1, 1, 6, f64).view({2, 3});
  const Tensor watched = run(x, sigmas, 5, 0, [&](const Step& step) {
    EXPECT_EQ(step.index, int64_t(seen.size()));
    EXPECT_EQ(step.count, 10);
    EXPECT_EQ(step.x.sizes(), x.sizes());
    EXPECT_EQ(step.x0.sizes(), x.sizes());
    if (seen.empty()) {
      EXPECT_TRUE(at::equal(step.x, x));
    }
    seen.push_back(step.sigma);
    return true;
  });
  EXPECT_EQ(seen, std::vector<double>(sigmas.begin(), sigmas.end() - 1));
  EXPECT_TRUE(at::equal(watched, run(x, sigmas, 5)));
}

TEST_P(SamplerContract, TheObserverCancels) {
  if (sampler_->traits().own_steps) GTEST_SKIP() << "its steps are its own";
  std::vector<double> sigmas = curved(10, 0.05, 9);
  int calls = 0;
  EXPECT_THROW(run(at::zeros({2, 3}, f64), sigmas, 5, 0, [&](const Step&) { return ++calls < 4; }), Interrupted);
  EXPECT_EQ(calls, 4);
}

TEST_P(SamplerContract, NotANumberStopsIt) {
  class Broken final : public Denoiser {
   public:
    Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
      Estimate d;
      d.x0 = x * (sigma < 1 ? NAN : 0.5);
      return d;
    }
  };
  std::vector<double> sigmas = curved(10, 0.05, 9);
  sigmas.push_back(0);
  const Condition none;
  const auto noise = per_image_noise(1, 0);
  brume::Run run{none, *noise, {}, schedule_.get()};
  const std::string said = error_of([&] { sampler_->sample(Broken(), at::full({1, 3}, 2.0, f64), sigmas, run); });
  EXPECT_NE(said.find("NaN or Inf"), std::string::npos) << said;
}

TEST_P(SamplerContract, ItsInputIsLeftAlone) {
  const Tensor x = at::linspace(-1, 1, 6, f64).view({2, 3}), before = x.clone();
  run(x, {5, 1, 0.2, 0});
  EXPECT_TRUE(at::equal(x, before));
}

/// Samplers of codes have laws of their own (codes_test.cpp).
std::vector<Specimen> continuous(std::vector<Specimen> all) {
  std::erase_if(all, [](const Specimen& s) { return of_codes(*make<Sampler>(s.yaml)) != nullptr; });
  return all;
}

INSTANTIATE_TEST_SUITE_P(Registry, SamplerContract,
                         testing::ValuesIn(continuous(specimens("sampler",
                                                                {"{type: ddim, eta: 0.5}",
                                                                 "{type: ddim, eta: 1}",
                                                                 "{type: ddpm, variance: large}",
                                                                 "{type: euler, s_churn: 20}",
                                                                 "{type: heun, s_churn: 20, s_noise: 1.003}",
                                                                 "{type: heun, time: variance}",
                                                                 "{type: heun, time: flow, scale: flow}",
                                                                 "{type: heun, alpha: 0.5}",
                                                                 "{type: heun, alpha: 0.5, time: flow, scale: flow}",
                                                                 "{type: euler, time: flow}",
                                                                 "{type: dpm_2, s_churn: 10}",
                                                                 "{type: dpm_2_ancestral, eta: 0}",
                                                                 "{type: lms, order: 2}",
                                                                 "{type: dpmpp_multistep, order: 1}",
                                                                 "{type: dpmpp_multistep, order: 2, solver: heun}",
                                                                 "{type: dpmpp_multistep, order: 3}",
                                                                 "{type: dpmpp_multistep, order: 3, eta: 1}",
                                                                 "{type: dpm_solver_multistep, order: 3}",
                                                                 "{type: dpm_solver_multistep, eta: 1}",
                                                                 "{type: dpmpp_singlestep, order: 3}",
                                                                 "{type: dpmpp_singlestep, order: 3, solver: heun}",
                                                                 "{type: dpmpp_singlestep, eta: 1}",
                                                                 "{type: dpm_solver_singlestep, order: 3}",
                                                                 "{type: dpmpp_2s_ancestral, eta: 0}",
                                                                 "{type: dpmpp_sde, eta: 0}",
                                                                 "{type: deis, order: 1}",
                                                                 "{type: deis, order: 3}",
                                                                 "{type: deis, order: 4}",
                                                                 "{type: unipc, order: 1}",
                                                                 "{type: unipc, order: 3}",
                                                                 "{type: unipc, order: 2, prediction: noise}",
                                                                 "{type: unipc, order: 3, solver: bh1}",
                                                                 "{type: unipc, disable_corrector: [0, 1]}",
                                                                 "{type: sa_solver, tau: 0}",
                                                                 "{type: sa_solver, tau: 0.5, predictor_order: 3, corrector_order: 3}",
                                                                 "{type: pndm, combine: v}",
                                                                 "{type: tcd, eta: 0}",
                                                                 "{type: dpm_adaptive, order: 2}",
                                                                 "{type: dpm_fast, eta: 1}"}))),
                         readable);

/// The law that ties them: DDPM's small variance is DDIM at eta 1 (Song et al. 2021, sec. 4.1).
TEST(Samplers, DdpmIsDdimAtEtaOne) {
  const GaussianDenoiser denoiser(0.6);
  const Condition none;
  const auto sample = [&](const std::string& yaml) {
    const auto noise = per_image_noise(1, 0);
    brume::Run run{none, *noise, {}};
    return make<Sampler>(yaml)->sample(denoiser, at::full({2, 50}, 8.0, f64), {10, 4, 1, 0.2, 0}, run);
  };
  EXPECT_LT((sample("ddpm") - sample("{type: ddim, eta: 1}")).abs().max().item<double>(), 1e-14);
}

TEST(Samplers, LearnedVarianceNeedsOne) {
  const GaussianDenoiser denoiser(0.6);
  const Condition none;
  const auto noise = per_image_noise(1, 0);
  brume::Run run{none, *noise, {}};
  EXPECT_EQ(error_of([&] {
              make<Sampler>("{type: ddpm, variance: learned_range}")->sample(denoiser, at::zeros({1, 1}, f64), {10, 4, 0}, run);
            }),
            "this model has no learned variance; choose variance: small or large");
}

}  // namespace
}  // namespace brume::test
