// Every objective keeps the laws of its kind (conform/objective.cpp); on every registered schedule and parameterization, it has no loss
// for a perfect model, some for another, and finite gradients.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "brume/core/objective.h"
#include "support/laws.h"
#include "support/registry.h"

namespace brume::test {
namespace {

/// Knows the images, so it knows F* = ((1 - c_skip) x0 - c_skip sigma n) / c_out; gives F* + error.
class KnowingModel final : public TrainableModel {
 public:
  KnowingModel(const NoiseSchedule& schedule, const std::string& parameterization, Tensor x0, double error,
               LearnedVariance variance = LearnedVariance::none)
      : schedule_(schedule),
        p_(make<Parameterization>(parameterization)),
        x0_(std::move(x0)),
        variance_(variance),
        error(at::full({1}, error)) {
    this->error.set_requires_grad(true);
  }
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition&) const override {
    const auto each = [&](const auto& f) {
      std::vector<double> values;
      for (const double s : sigmas) values.push_back(f(s));
      return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).view({-1, 1, 1, 1});
    };
    // Where the network has no say (a consistency model at its least sigma) any F will do.
    const auto inverse = [&](double s) { return p_->c_out(s) == 0 ? 0 : 1 / p_->c_out(s); };
    const Tensor x0 = x0_.to(at::kDouble), noise = x.to(at::kDouble) - x0;
    const Tensor exact = x0 * each([&](double s) { return (1 - p_->c_skip(s)) * inverse(s); }) -
                         noise * each([&](double s) { return p_->c_skip(s) * inverse(s); });
    asked = sigmas;
    const Tensor f = exact.to(at::kFloat) + error;
    return {f, variance_ == LearnedVariance::none ? Tensor() : f * 0};
  }
  const NoiseSchedule& schedule() const override { return schedule_; }
  const Parameterization& parameterization() const override { return *p_; }
  LearnedVariance variance() const override { return variance_; }
  mutable std::vector<double> asked;

 private:
  const NoiseSchedule& schedule_;
  std::shared_ptr<const Parameterization> p_;
  Tensor x0_;
  LearnedVariance variance_;

 public:
  Tensor error;
};

/// A teacher that knows the images too, in the order they come.
class ExactTeacher final : public ModelSource, public Denoiser {
 public:
  explicit ExactTeacher(Tensor x0) : x0_(std::move(x0)) {}
  OtherModel model(const std::string&) const override { return {std::shared_ptr<const Denoiser>(std::shared_ptr<void>(), this), nullptr}; }
  std::shared_ptr<const NoisyClassifier> classifier(const std::string&) const override { return nullptr; }
  /// The image whose noisy self is nearest: a batch may be a part of the images.
  Estimate denoise(const Tensor& x, double, const Condition&) const override {
    const Tensor distance = (x.flatten(1).unsqueeze(1) - x0_.flatten(1).unsqueeze(0)).square().sum(2);
    Estimate d;
    d.x0 = x0_.index_select(0, distance.argmin(1));
    return d;
  }

 private:
  Tensor x0_;
};

/// sigma from 1e-4 to 1e6, the cap of the sigma frame.
class ExtremeSchedule final : public NoiseSchedule {
 public:
  double sigma(double t) const override { return std::pow(10, -4 + 10 * t); }
  double time(double sigma) const override { return std::clamp((std::log10(sigma) + 4) / 10, 0.0, 1.0); }
  double t_min() const override { return 0; }
  double t_max() const override { return 1; }
};

/// A bound has a minimum above zero, since the image is not known exactly from what is left of it; a consistency model is to give the
/// end of its path, not the image.
const std::set<std::string> above_zero{"vlb", "hybrid", "consistency", "consistency_distillation"};

/// What an objective can train: a parameterization and a learned variance.
struct Trainee {
  std::string parameterization;
  LearnedVariance variance;
};

class ObjectiveContract : public testing::TestWithParam<Specimen> {
 protected:
  static constexpr int64_t batch = 64;
  std::shared_ptr<const Objective> objective_ = make<Objective>(GetParam().yaml);
  Tensor x0_ = [] {
    at::Generator random = at::detail::createCPUGenerator(8);
    return at::randn({batch, 3, 4, 4}, random, at::TensorOptions().dtype(at::kFloat)).clamp(-1, 1);
  }();
  ExactTeacher teacher_{x0_};

  Tensor loss(const TrainableModel& model, uint64_t seed = 1) const {
    at::Generator random = at::detail::createCPUGenerator(seed);
    Training training{0, 100, objective_->memory(model.schedule()), &teacher_};
    return objective_->loss(model, x0_, {}, training, random);
  }
  KnowingModel model(const NoiseSchedule& schedule, const Trainee& t, double error) const {
    return KnowingModel(schedule, t.parameterization, x0_, error, t.variance);
  }
  /// Everything registered that this objective accepts on a schedule.
  std::vector<Trainee> trainees(const NoiseSchedule& schedule) const {
    std::vector<Trainee> some;
    std::vector<std::string> parameterizations = builtins().names("parameterization");
    if (GetParam().name.starts_with("consistency"))
      parameterizations.push_back(fmt::format("{{type: consistency, sigma_min: {}}}", schedule.sigma(schedule.t_min())));
    for (const std::string& p : parameterizations)
      for (const LearnedVariance v : {LearnedVariance::none, LearnedVariance::learned_range}) try {
          objective_->check({schedule, *make<Parameterization>(p), v});
          some.push_back({p, v});
        } catch (const ConfigError&) {
        }
    return some;
  }
  /// Calls f(schedule, trainee) for every pair that is registered and accepted.
  template <class F>
  void over_models(const F& f) const {
    int64_t models = 0;
    for (const std::string& name : builtins().names("noise_schedule")) {
      const auto schedule = make<NoiseSchedule>(name);
      for (const Trainee& t : trainees(*schedule)) {
        SCOPED_TRACE(name + ", " + t.parameterization);
        f(*schedule, t);
        ++models;
      }
    }
    EXPECT_GT(models, 0) << "there is nothing it can train";
  }
};

TEST_P(ObjectiveContract, NothingToLearnFromAPerfectModel) {
  over_models([&](const NoiseSchedule& schedule, const Trainee& t) {
    const double perfect = loss(model(schedule, t, 0)).item<double>(), wrong = loss(model(schedule, t, 1)).item<double>();
    EXPECT_GE(perfect, above_zero.contains(GetParam().name) ? -1e-4 : 0);  // a KL near 0 is known to float32's rounding
    EXPECT_GT(wrong, 0);
    EXPECT_LT(perfect, above_zero.contains(GetParam().name) ? wrong : 1e-4 * wrong);
  });
}

TEST_P(ObjectiveContract, TheLossGrowsWithTheError) {
  over_models([&](const NoiseSchedule& schedule, const Trainee& t) {
    EXPECT_LT(loss(model(schedule, t, 0.1)).item<double>(), loss(model(schedule, t, 0.5)).item<double>());
  });
}

TEST_P(ObjectiveContract, GradientsFlow) {
  over_models([&](const NoiseSchedule& schedule, const Trainee& t) {
    const KnowingModel knowing = model(schedule, t, 0.3);
    const Tensor l = loss(knowing);
    EXPECT_EQ(l.dim(), 0);
    EXPECT_EQ(l.scalar_type(), at::kFloat);
    l.backward();
    ASSERT_TRUE(knowing.error.grad().defined());
    EXPECT_TRUE(std::isfinite(knowing.error.grad().item<double>()));
    EXPECT_GT(knowing.error.grad().item<double>(), 0);  // a larger error is a larger loss
  });
}

TEST_P(ObjectiveContract, FiniteAtEveryNoiseLevel) {
  const ExtremeSchedule extreme;
  for (const Trainee& t : trainees(extreme)) {
    SCOPED_TRACE(t.parameterization);
    for (const double error : {0.0, 0.5}) {
      const KnowingModel knowing = model(extreme, t, error);
      const Tensor l = loss(knowing);
      EXPECT_TRUE(std::isfinite(l.item<double>()));
      l.backward();
      EXPECT_TRUE(at::isfinite(knowing.error.grad()).all().item<bool>());
    }
  }
}

TEST_P(ObjectiveContract, KeepsItsLaws) { expect_to_hold(conform(*objective_)); }

TEST_P(ObjectiveContract, SigmasAreOfTheSchedule) {
  over_models([&](const NoiseSchedule& schedule, const Trainee& t) {
    const KnowingModel knowing = model(schedule, t, 0);
    loss(knowing);
    ASSERT_EQ(knowing.asked.size(), size_t(batch));
    for (const double s : knowing.asked) EXPECT_TRUE(s >= schedule.sigma(schedule.t_min()) && s <= schedule.sigma(schedule.t_max())) << s;
  });
}

/// Those whose best model is known beforehand.
std::vector<Specimen> denoising(std::vector<Specimen> all) {
  std::erase_if(all, [](const Specimen& s) { return !make<Objective>(s.yaml)->denoises(); });
  return all;
}

INSTANTIATE_TEST_SUITE_P(Registry, ObjectiveContract,
                         testing::ValuesIn(denoising(specimens(
                             "objective", {"{type: simple, loss: mae, target: image}", "{type: simple, loss: huber, target: v}",
                                           "{type: simple, target: image, weighting: min_snr}", "{type: simple, target: v, weighting: p2}",
                                           "{type: simple, target: flow, time: loss_second_moment}",
                                           "{type: simple, weighting: edm, time: low_discrepancy}", "{type: flow, time: logit_normal}",
                                           "{type: vlb, variance: large, terms: mean}", "{type: hybrid, lambda: 1, terms: mean}",
                                           "{type: consistency_distillation, teacher: t, solver: euler}"}))),
                         readable);

/// A network that is wrong by e is wrong by |c_out| e in x0, whatever it predicts: the loss on a target follows.
TEST(Simple, TheErrorIsMeasuredOnTheTarget) {
  const auto schedule = make<NoiseSchedule>("{type: angle, min_signal: 0.6, max_signal: 0.600001}");  // one sigma, 4/3
  const double s = 4.0 / 3, e = 0.5;
  const auto loss = [&](const std::string& objective, const std::string& p) {
    at::Generator random = at::detail::createCPUGenerator(1);
    const Tensor x0 = at::zeros({4, 1, 2, 2});
    Training training;
    return make<Objective>(objective)->loss(KnowingModel(*schedule, p, x0, e), x0, {}, training, random).item<double>();
  };
  const double image = e * s, v = e * std::hypot(1, s);  // what an error e of the noise is
  EXPECT_NEAR(loss("{type: simple, target: noise}", "eps"), e * e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: image}", "eps"), image * image, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: v}", "eps"), v * v, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: v}", "v"), e * e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: image}", "x0"), e * e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: noise}", "x0"), e * e / (s * s), 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: flow}", "eps"), e * e * (1 + s) * (1 + s), 1e-5);
  EXPECT_NEAR(loss("{type: flow}", "flow"), e * e, 1e-5);
  EXPECT_NEAR(loss("{type: edm, time: uniform}", "edm"), e * e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: noise, loss: mae}", "eps"), e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: noise, loss: huber, delta: 0.1}", "eps"), 0.1 * (e - 0.05), 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: noise, weighting: {type: p2, k: 1, gamma: 1}}", "eps"), e * e * (s * s) / (1 + s * s), 1e-5);
}

/// Song & Dhariwal 2023, eq. 12: K' = floor(100 / (log2(1280 / 10) + 1)) = 12 steps of 10, 20, ... 1280 intervals.
TEST(ConsistencyTraining, TheLevelsComeCloser) {
  const auto schedule = make<NoiseSchedule>("angle");
  const auto objective = make<Objective>("consistency");
  const Tensor x0 = at::zeros({64, 1, 2, 2});
  const double least = schedule->sigma(0);
  for (const auto& [step, intervals] : {std::pair(0, 10), {11, 10}, {12, 20}, {24, 40}, {84, 1280}, {99, 1280}}) {
    const KnowingModel model(*schedule, fmt::format("{{type: consistency, sigma_min: {}}}", least), x0, 0.1);
    at::Generator random = at::detail::createCPUGenerator(1);
    Training training{step, 100};
    objective->loss(model, x0, {}, training, random);
    const double a = std::pow(least, 1.0 / 7), b = std::pow(schedule->sigma(1), 1.0 / 7);
    double coarser = 0;  // how far the levels are from those of half as many intervals
    for (const double s : model.asked) {
      const double place = (std::pow(s, 1.0 / 7) - a) / (b - a) * intervals;
      EXPECT_NEAR(place, std::nearbyint(place), 1e-6) << step;
      coarser = std::max(coarser, std::abs(place / 2 - std::nearbyint(place / 2)));
    }
    EXPECT_NEAR(coarser, 0.5, 1e-6) << step;
  }
}

}  // namespace
}  // namespace brume::test
