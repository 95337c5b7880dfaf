// Parity with the losses and the variational bound of openai/guided-diffusion (shared/refs/guided_diffusion.json): training_losses of
// every mean, variance and loss type, and calc_bpd_loop.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/diffusion/likelihood.h"
#include "brume/numerics/bound.h"
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

Tensor input(const char* name, at::ScalarType dtype) { return tensor_of(ref_json(file)["inputs"][name], shape, dtype); }

LearnedVariance learned(const std::string& var_type) {
  return var_type == "LEARNED"         ? LearnedVariance::learned
         : var_type == "LEARNED_RANGE" ? LearnedVariance::learned_range
                                       : LearnedVariance::none;
}
StepVariance fixed(const std::string& var_type) { return var_type == "FIXED_LARGE" ? StepVariance::large : StepVariance::small; }

/// The scripted network as an objective sees it, each image at its own time.
class ScriptedModel final : public TrainableModel {
 public:
  ScriptedModel(const SchedulerConfig& config, const std::string& var_type)
      : config_(config), network_(guided_network(var_type)), variance_(learned(var_type)) {}
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition&) const override {
    std::vector<Tensor> rows;
    for (size_t i = 0; i < sigmas.size(); ++i)
      rows.push_back(network_(x.narrow(0, int64_t(i), 1) * config_.signal(sigmas[i]), config_.noise->time(sigmas[i])));
    const Tensor out = at::cat(rows);
    if (variance_ == LearnedVariance::none) return {out, {}};
    return {out.narrow(1, 0, x.size(1)), out.narrow(1, x.size(1), x.size(1))};
  }
  const NoiseSchedule& schedule() const override { return *config_.noise; }
  const Parameterization& parameterization() const override { return *config_.parameterization; }
  LearnedVariance variance() const override { return variance_; }

 private:
  const SchedulerConfig& config_;
  ScriptedNetwork network_;
  LearnedVariance variance_;
};

/// The error of whatever the network predicts: one of x0 over c_out.
class OfThePrediction final : public Weighting {
 public:
  explicit OfThePrediction(const Parameterization& p) : p_(p) {}
  double weight(double sigma, Target) const override { return 1 / (p_.c_out(sigma) * p_.c_out(sigma)); }

 private:
  const Parameterization& p_;
};

class GuidedLosses : public testing::TestWithParam<size_t> {
 protected:
  static void TearDownTestSuite() { closeness.print("guided-diffusion training_losses"); }
  static Closeness closeness;
  static void near(const Tensor& got, const json& wanted, const char* what) {
    for (size_t i = 0; i < wanted.size(); ++i)
      closeness.near(got[int64_t(i)].item<double>(), wanted[i], 2e-5 * std::abs(wanted[i].get<double>()) + 1e-6,
                     fmt::format("{}[{}]", what, i));
  }
};
Closeness GuidedLosses::closeness;

TEST_P(GuidedLosses, AreThoseOfTheObjectives) {
  const json& c = ref_json(file)["training_losses"][GetParam()];
  const std::string var_type = c["var_type"], loss_type = c["loss_type"];
  const SchedulerConfig config =
      read_guided({.schedule = c["schedule"], .mean_type = c["mean_type"], .var_type = var_type, .training_times = c["T"]});
  const ScriptedModel model(config, var_type);
  const bool rescaled = loss_type.starts_with("RESCALED"), kl = loss_type.ends_with("KL");
  BoundError bound{fixed(var_type), rescaled ? BoundError::Terms::sum : BoundError::Terms::mean};
  const AncestralChain chain = training_chain(*config.noise, 0);
  BoundError::Drawn drawn{{}, {}, {}, int64_t(chain.size())};
  for (const size_t t : c["t"].get<std::vector<size_t>>()) drawn.sigmas.push_back(chain.sigma(t)), drawn.steps.push_back(chain.step(t));
  const Tensor x0 = input("x_start", at::kFloat), noise = input("noise", at::kFloat);
  const NoisyBatch b{x0, noise, x0 + noise * each_image(drawn.sigmas, x0, [](double s) { return s; }), drawn.sigmas};
  const TrainableModel::Prediction y = model.predict(b.x, b.sigmas, {});

  if (kl) return near(bound.per_image(b, drawn, y, model, BoundError::Mean::learns), c["loss"], "loss");
  TargetError error{.target = c["mean_type"] == "EPSILON" ? Target::noise : Target::image, .weighting = make<Weighting>("none")};
  if (c["mean_type"] == "PREVIOUS_X") error.weighting = std::make_shared<OfThePrediction>(*config.parameterization);
  Tensor loss = error.per_image(b, y.f, *config.parameterization);
  near(loss, c["mse"], "mse");
  if (model.variance() != LearnedVariance::none) {
    const Tensor vb = bound.per_image(b, drawn, y, model, BoundError::Mean::fixed) * (rescaled ? 0.001 : 1);  // hybrid's lambda
    near(vb, c["vb"], "vb");
    loss = loss + vb;
  }
  near(loss, c["loss"], "loss");
}

std::string loss_name(const testing::TestParamInfo<size_t>& info) {
  const json& c = ref_json(file)["training_losses"][info.param];
  return test_name(fmt::format("{}_{}_{}_{}_{}", info.param, c["mean_type"].get<std::string>(), c["var_type"].get<std::string>(),
                               c["loss_type"].get<std::string>(), c["schedule"].get<std::string>()));
}
INSTANTIATE_TEST_SUITE_P(Cases, GuidedLosses, testing::ValuesIn(indices("training_losses")), loss_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GuidedLosses);

/// The same tensor at every draw.
class OneTensor final : public Noise {
 public:
  explicit OneTensor(Tensor value) : value_(std::move(value)) {}
  Tensor draw(const Tensor& like, double, double) override { return value_.to(like.scalar_type()); }

 private:
  Tensor value_;
};

class GuidedBound : public testing::TestWithParam<size_t> {
 protected:
  static void TearDownTestSuite() { closeness.print("guided-diffusion calc_bpd_loop"); }
  static Closeness closeness;
  static void near(double got, double wanted, const std::string& what) {
    closeness.near(got, wanted, 2e-5 * std::abs(wanted) + 1e-6, what);
  }
};
Closeness GuidedBound::closeness;

TEST_P(GuidedBound, IsTheLikelihoods) {
  const json& c = ref_json(file)["calc_bpd_loop"][GetParam()];
  const std::string var_type = c["var_type"], mean_type = c["mean_type"];
  const SchedulerConfig config =
      read_guided({.schedule = c["schedule"], .mean_type = mean_type, .var_type = var_type, .training_times = c["T"]});
  const auto denoiser = std::make_shared<ScriptedDenoiser>(guided_network(var_type), config);
  const AncestralChain chain = training_chain(*config.noise, 0);
  const double last = chain.sigma(chain.size() - 1);
  const bool clip = c["clip_denoised"];
  const auto bound = [&](bool clipped) {
    std::unique_ptr<Noise> noise = batch_noise(0);
    if (c["noise"] == "fixed") noise = std::make_unique<OneTensor>(input("noise", at::kFloat));
    return variational_bound(*denoiser, input("x_start", at::kFloat), {}, chain, config.noise->start_std(last),
                             {step_variance(learned(var_type), fixed(var_type)), clipped}, *noise);
  };
  const VariationalBound b = bound(clip && mean_type != "PREVIOUS_X");  // the mean of PREVIOUS_X is not clipped
  const Tensor x0_mse = mean_type == "PREVIOUS_X" ? bound(clip).x0_mse : b.x0_mse;
  const Tensor total = b.total();
  for (int64_t i = 0; i < 4; ++i) {
    near(total[i].item<double>(), c["total_bpd"][size_t(i)], fmt::format("total_bpd[{}]", i));
    near(b.prior[i].item<double>(), c["prior_bpd"][size_t(i)], fmt::format("prior_bpd[{}]", i));
  }
  const json& sums = c["vb_sum_per_t(from T-1 to 0 order as returned)"];
  ASSERT_EQ(sums.size(), chain.size());
  for (size_t k = 0; k < chain.size(); ++k) {
    const size_t t = chain.size() - 1 - k;
    const Tensor column = b.terms.select(1, int64_t(t));
    near(column.sum().item<double>(), sums[k], fmt::format("vb_sum at {}", t));
    near(column[0].item<double>(), c["vb_sample0"][k], fmt::format("vb_sample0 at {}", t));
    const double mse = x0_mse[0][int64_t(t)].item<double>();
    near(mse, c["xstart_mse_sample0"][k], fmt::format("xstart_mse at {}", t));
    near(mse / (chain.sigma(t) * chain.sigma(t)), c["mse_sample0"][k], fmt::format("mse at {}", t));
  }
}

std::string bound_name(const testing::TestParamInfo<size_t>& info) {
  const json& c = ref_json(file)["calc_bpd_loop"][info.param];
  return test_name(fmt::format("{}_{}_{}_{}_{}_{}", info.param, c["mean_type"].get<std::string>(), c["var_type"].get<std::string>(),
                               c["schedule"].get<std::string>(), c["clip_denoised"].get<bool>() ? "clip" : "free",
                               c["noise"].get<std::string>()));
}
INSTANTIATE_TEST_SUITE_P(Cases, GuidedBound, testing::ValuesIn(indices("calc_bpd_loop")), bound_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GuidedBound);

TEST(GuidedPrior, IsThePriorTerm) {
  BRUME_NEED_REF(file);
  const auto noise = make<NoiseSchedule>(guided_noise("linear", 1000));
  const double last = noise->sigma(999);
  const Tensor got = prior_term(input("x_start", at::kFloat), last, noise->start_std(last));
  Closeness closeness;
  for (size_t i = 0; i < 4; ++i)
    closeness.near(got[int64_t(i)].item<double>(), ref_json(file)["predict"]["prior_bpd"][i], 1e-6, fmt::format("prior_bpd[{}]", i));
  closeness.print("guided-diffusion prior_bpd");
}

}  // namespace
}  // namespace brume::test
