// Every objective: no loss for a perfect model, some for another, gradients, and finite numbers at every noise level.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "core/objective.h"
#include "support/registry.h"

namespace brume::test {
namespace {

/// Knows the images, so it knows F* = ((1 - c_skip) x0 - c_skip sigma n) / c_out; gives F* + error.
class KnowingModel final : public TrainableModel {
 public:
  KnowingModel(const NoiseSchedule& schedule, const std::string& parameterization, Tensor x0, double error)
      : schedule_(schedule), p_(make<Parameterization>(parameterization)), x0_(std::move(x0)), error(at::full({1}, error)) {
    this->error.set_requires_grad(true);
  }
  Tensor network(const Tensor& x, const std::vector<double>& sigmas, const Condition&) const override {
    const auto each = [&](const auto& f) {
      std::vector<double> values;
      for (const double s : sigmas) values.push_back(f(s));
      return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).view({-1, 1, 1, 1});
    };
    const Tensor x0 = x0_.to(at::kDouble), noise = x.to(at::kDouble) - x0;
    const Tensor exact = x0 * each([&](double s) { return (1 - p_->c_skip(s)) / p_->c_out(s); }) -
                         noise * each([&](double s) { return p_->c_skip(s) / p_->c_out(s); });
    asked = sigmas;
    return exact.to(at::kFloat) + error;
  }
  const NoiseSchedule& schedule() const override { return schedule_; }
  const Parameterization& parameterization() const override { return *p_; }
  mutable std::vector<double> asked;

 private:
  const NoiseSchedule& schedule_;
  std::shared_ptr<const Parameterization> p_;
  Tensor x0_;

 public:
  Tensor error;
};

/// sigma from 1e-4 to 1e6, the cap of the sigma frame.
class ExtremeSchedule final : public NoiseSchedule {
 public:
  double sigma(double t) const override { return std::pow(10, -4 + 10 * t); }
  double time(double sigma) const override { return std::clamp((std::log10(sigma) + 4) / 10, 0.0, 1.0); }
  double t_min() const override { return 0; }
  double t_max() const override { return 1; }
};

class ObjectiveContract : public testing::TestWithParam<Specimen> {
 protected:
  static constexpr int64_t batch = 64;
  std::shared_ptr<const Objective> objective_ = make<Objective>(GetParam().yaml);
  Tensor x0_ = [] {
    at::Generator random = at::detail::createCPUGenerator(8);
    return at::randn({batch, 3, 4, 4}, random, at::TensorOptions().dtype(at::kFloat)).clamp(-1, 1);
  }();
  Tensor loss(const TrainableModel& model, uint64_t seed = 1) const {
    at::Generator random = at::detail::createCPUGenerator(seed);
    return objective_->loss(model, x0_, {}, random);
  }
  /// Calls f(schedule, parameterization) for every pair that is registered.
  template <class F>
  void over_models(const F& f) const {
    for (const std::string& schedule : builtins().names("noise_schedule"))
      for (const std::string& parameterization : builtins().names("parameterization")) {
        SCOPED_TRACE(schedule + ", " + parameterization);
        f(*make<NoiseSchedule>(schedule), parameterization);
      }
  }
};

TEST_P(ObjectiveContract, NothingToLearnFromAPerfectModel) {
  over_models([&](const NoiseSchedule& schedule, const std::string& p) {
    const double perfect = loss(KnowingModel(schedule, p, x0_, 0)).item<double>(),
                 wrong = loss(KnowingModel(schedule, p, x0_, 1)).item<double>();
    EXPECT_GE(perfect, 0);
    EXPECT_GT(wrong, 0);
    EXPECT_LT(perfect, 1e-4 * wrong);
  });
}

TEST_P(ObjectiveContract, TheLossGrowsWithTheError) {
  over_models([&](const NoiseSchedule& schedule, const std::string& p) {
    EXPECT_LT(loss(KnowingModel(schedule, p, x0_, 0.1)).item<double>(), loss(KnowingModel(schedule, p, x0_, 0.5)).item<double>());
  });
}

TEST_P(ObjectiveContract, GradientsFlow) {
  over_models([&](const NoiseSchedule& schedule, const std::string& p) {
    const KnowingModel model(schedule, p, x0_, 0.3);
    const Tensor l = loss(model);
    EXPECT_EQ(l.dim(), 0);
    EXPECT_EQ(l.scalar_type(), at::kFloat);
    l.backward();
    ASSERT_TRUE(model.error.grad().defined());
    EXPECT_TRUE(std::isfinite(model.error.grad().item<double>()));
    EXPECT_GT(model.error.grad().item<double>(), 0);  // a larger error is a larger loss
  });
}

TEST_P(ObjectiveContract, FiniteAtEveryNoiseLevel) {
  const ExtremeSchedule extreme;
  for (const std::string& p : builtins().names("parameterization")) {
    SCOPED_TRACE(p);
    for (const double error : {0.0, 0.5}) {
      const KnowingModel model(extreme, p, x0_, error);
      const Tensor l = loss(model);
      EXPECT_TRUE(std::isfinite(l.item<double>()));
      l.backward();
      EXPECT_TRUE(at::isfinite(model.error.grad()).all().item<bool>());
    }
  }
}

TEST_P(ObjectiveContract, TheGeneratorIsTheOnlyRandomness) {
  const auto schedule = make<NoiseSchedule>("cosine");
  const KnowingModel model(*schedule, "v", x0_, 0.3);
  const double one = loss(model, 1).item<double>();
  const std::vector<double> sigmas = model.asked;
  EXPECT_EQ(loss(model, 1).item<double>(), one);
  EXPECT_EQ(model.asked, sigmas);
  loss(model, 2);
  EXPECT_NE(model.asked, sigmas);
}

TEST_P(ObjectiveContract, SigmasAreOfTheSchedule) {
  over_models([&](const NoiseSchedule& schedule, const std::string& p) {
    const KnowingModel model(schedule, p, x0_, 0);
    loss(model);
    ASSERT_EQ(model.asked.size(), size_t(batch));
    for (const double s : model.asked) EXPECT_TRUE(s >= schedule.sigma(schedule.t_min()) && s <= schedule.sigma(schedule.t_max())) << s;
  });
}

INSTANTIATE_TEST_SUITE_P(Registry, ObjectiveContract,
                         testing::ValuesIn(specimens("objective",
                                                     {"{type: simple, loss: mae, target: image}", "{type: simple, loss: huber, target: v}",
                                                      "{type: simple, target: image, weighting: min_snr}",
                                                      "{type: simple, target: v, weighting: p2}"})),
                         readable);

/// A network that is wrong by e is wrong by |c_out| e in x0, whatever it predicts: the loss on a target follows.
TEST(Simple, TheErrorIsMeasuredOnTheTarget) {
  const auto schedule = make<NoiseSchedule>("{type: angle, min_signal: 0.6, max_signal: 0.600001}");  // one sigma, 4/3
  const double s = 4.0 / 3, e = 0.5;
  const auto loss = [&](const std::string& objective, const std::string& p) {
    at::Generator random = at::detail::createCPUGenerator(1);
    const Tensor x0 = at::zeros({4, 1, 2, 2});
    return make<Objective>(objective)->loss(KnowingModel(*schedule, p, x0, e), x0, {}, random).item<double>();
  };
  const double image = e * s, v = e * std::hypot(1, s);  // what an error e of the noise is
  EXPECT_NEAR(loss("{type: simple, target: noise}", "eps"), e * e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: image}", "eps"), image * image, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: v}", "eps"), v * v, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: v}", "v"), e * e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: image}", "x0"), e * e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: noise}", "x0"), e * e / (s * s), 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: noise, loss: mae}", "eps"), e, 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: noise, loss: huber, delta: 0.1}", "eps"), 0.1 * (e - 0.05), 1e-5);
  EXPECT_NEAR(loss("{type: simple, target: noise, weighting: {type: p2, k: 1, gamma: 1}}", "eps"), e * e * (s * s) / (1 + s * s), 1e-5);
}

}  // namespace
}  // namespace brume::test
