// Laws of the objectives that need a whole model or a training: learned variance, the hybrid's stopped gradient, a memory that resumes,
// and consistency models taught by a teacher.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <fstream>

#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/train/trainer.h"
#include "brume/weights/weights_file.h"
#include "loaded.h"
#include "support/gaussian.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

constexpr const char* tiny = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, zero_init: false}
  noise: {type: linear, timesteps: 40, rescale: true}
  parameterization: eps
  variance: learned_range
train:
  data: {type: shapes}
  batch: 8
  steps: 60
  ema: {decay: 0.9}
  preview: {count: 0}
sample:
  sampler: {type: ddpm, variance: learned_range}
  steps: 4
  guidance: [clip]
compute: {precision: fp32}
)";

Loaded load(const std::vector<std::string>& overrides = {}) { return loaded(tiny, overrides); }

Tensor images(int64_t count) {
  at::Generator random = at::detail::createCPUGenerator(8);
  return at::randn({count, 1, 8, 8}, random, at::TensorOptions().dtype(at::kFloat)).clamp(-1, 1);
}

/// Gradients of every weight under an objective, by name.
std::map<std::string, Tensor> gradients(const Pipeline& model, const std::string& objective, double* loss = nullptr) {
  const at::AutoGradMode with_grad(true);
  for (Weight& w : model.weights()) w.tensor.set_requires_grad(true), w.tensor.mutable_grad() = Tensor();
  at::Generator random = at::detail::createCPUGenerator(3);
  const auto o = make<Objective>(objective);
  brume::Training training{0, 1, o->memory(*model.options().noise)};
  const Tensor batch = images(16);
  const std::vector<Annotation> annotations(16);
  const Tensor l = model.loss(*o, {batch, annotations}, training, random);
  l.backward();
  if (loss) *loss = l.item<double>();
  std::map<std::string, Tensor> all;
  for (Weight& w : model.weights()) all[w.name] = w.tensor.grad().clone();
  return all;
}

TEST(Hybrid, IsTheSumAndItsBoundDoesNotReachTheMean) {
  const Pipeline model(load().config.model, {}, 1);
  double simple = 0, vlb = 0, hybrid = 0;
  const auto of_simple = gradients(model, "simple", &simple);
  gradients(model, "vlb", &vlb);
  const auto of_hybrid = gradients(model, "{type: hybrid, lambda: 0.01}", &hybrid);
  EXPECT_NEAR(hybrid, simple + 0.01 * vlb, 1e-4 * hybrid);
  // The last layer has a row for the mean and one for the variance.
  const Tensor a = of_simple.at("network.out.2.weight"), b = of_hybrid.at("network.out.2.weight");
  ASSERT_EQ(a.size(0), 2);
  EXPECT_TRUE(b[0].allclose(a[0], 1e-5, 1e-7));
  EXPECT_EQ(a[1].abs().max().item<double>(), 0);
  EXPECT_GT(b[1].abs().max().item<double>(), 0);
}

TEST(LearnedVariance, TrainsSavesAndSamples) {
  const TempFolder folder;
  const Loaded l = load({"train.objective=hybrid", "train.steps=5"});
  Trainer trainer(l.config, l.resolved, folder.path() / "run");
  EXPECT_TRUE(trainer.run(nullptr));
  const ModelCard card = read_card(folder.file("run/model.safetensors"));
  EXPECT_EQ(card.model.find("variance")->scalar, "learned_range");
  Pipeline model(l.config.model, resolve_compute(l.config.compute));
  load_weights(folder.file("run/model.safetensors"), model.weights());
  model.freeze();
  SampleRequest request;
  request.images.resize(3);
  request.batch = 3;
  const Tensor together = sample_images(model, request, l.config.sample);
  request.batch = 1;
  EXPECT_TRUE(sample_images(model, request, l.config.sample).equal(together));
  EXPECT_TRUE(std::isfinite(together.sum().item<double>()));
}

TEST(LearnedVariance, MistakesAreFoundBeforeSampling) {
  EXPECT_EQ(error_of([] { load({"model.variance=none"}); }),
            "tiny.yaml:15:12: sample.sampler: takes the variance that the network gives (learned_range), and model.variance is none; set "
            "the sampler's variance "
            "to small or large, or train a model of variance: learned_range");
  EXPECT_EQ(error_of([] {
              load({"model.variance=none", "sample.sampler=ddim", "train.objective=hybrid"});
            }),
            "--set train.objective=hybrid: train.objective: hybrid trains a variance, and model.variance is none; set it to learned_range "
            "(or learned), or take the objective "
            "simple");
  Loaded l = load({"sample.sampler=ddim", "model.variance=none"});
  const Pipeline model(l.config.model, {}, 1);
  SampleOptions options = l.config.sample;
  options.sampler = make<Sampler>("{type: ddpm, variance: learned}");
  EXPECT_NE(error_of([&] { sample_images(model, {}, options); }).find("model.variance is none"), std::string::npos);
}

TEST(LossSecondMoment, ResumesBitForBit) {
  const TempFolder folder;
  const Loaded l = load({"train.objective={type: hybrid, time: {type: loss_second_moment, history: 2}}"});
  {
    Trainer whole(l.config, l.resolved, folder.path() / "whole");
    EXPECT_TRUE(whole.run(nullptr));
  }
  {
    Trainer first(l.config, l.resolved, folder.path() / "halves");
    EXPECT_FALSE(first.run([&] { return first.step() == 40; }));
  }
  Trainer second(l.config, l.resolved, folder.path() / "halves", folder.path() / "halves/training.safetensors");
  EXPECT_TRUE(second.run(nullptr));
  const NamedTensors a = load_tensors(folder.file("whole/training.safetensors")),
                     b = load_tensors(folder.file("halves/training.safetensors"));
  ASSERT_EQ(a.size(), b.size());
  bool history = false;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].name == b[i].name && a[i].tensor.equal(b[i].tensor)) << a[i].name;
    if (a[i].name == "objective.loss_counts") history = a[i].tensor.min().item<int64_t>() == 2;  // it did more than draw evenly
  }
  EXPECT_TRUE(history);
}

/// Says that the data are N(0, std^2), exactly or not, and predicts the image.
class GaussianModel final : public TrainableModel {
 public:
  GaussianModel(const NoiseSchedule& schedule, double std) : schedule_(schedule), variance_(std * std) {}
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition&) const override {
    std::vector<Tensor> rows;
    for (size_t i = 0; i < sigmas.size(); ++i) rows.push_back(x[int64_t(i)] * (variance_ / (variance_ + sigmas[i] * sigmas[i])));
    return {at::stack(rows), {}};
  }
  const NoiseSchedule& schedule() const override { return schedule_; }
  const Parameterization& parameterization() const override { return *p_; }

 private:
  const NoiseSchedule& schedule_;
  double variance_;
  std::shared_ptr<const Parameterization> p_ = make<Parameterization>("x0");
};

TEST(Vlb, TheExactGaussianIsTheMinimum) {
  const auto schedule = make<NoiseSchedule>("{type: linear, timesteps: 50, rescale: true}");
  at::Generator random = at::detail::createCPUGenerator(8);
  const Tensor x0 = at::randn({2000, 1, 4, 4}, random, at::TensorOptions().dtype(at::kFloat)) * 0.3;
  for (const char* yaml : {"vlb", "{type: vlb, variance: large, terms: mean}", "{type: vlb, time: low_discrepancy}"}) {
    const auto loss = [&](double std) {
      at::Generator same = at::detail::createCPUGenerator(1);
      brume::Training training;
      return make<Objective>(yaml)->loss(GaussianModel(*schedule, std), x0, {}, training, same).item<double>();
    };
    const double exact = loss(0.3);
    for (const double std : {0.2, 0.26, 0.35, 0.5}) EXPECT_LT(exact, loss(std)) << yaml << " " << std;
  }
}

/// The end of the paths of Gaussian data, x sqrt((s^2 + least^2) / (s^2 + sigma^2)), as a consistency model.
class ExactStudent final : public TrainableModel {
 public:
  explicit ExactStudent(const NoiseSchedule& schedule) : schedule_(schedule), least_(schedule.sigma(schedule.t_min())) {
    p_ = make<Parameterization>("{type: consistency, sigma_min: " + std::to_string(least_) + "}");
  }
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition&) const override {
    std::vector<Tensor> rows;
    for (size_t i = 0; i < sigmas.size(); ++i) {
      const double s = sigmas[i], out = p_->c_out(s);
      const double end = std::sqrt((0.25 + least_ * least_) / (0.25 + s * s));
      rows.push_back(x[int64_t(i)] * (std::abs(out) < 1e-6 ? 0 : (end - p_->c_skip(s)) / out));
    }
    return {at::stack(rows), {}};
  }
  const NoiseSchedule& schedule() const override { return schedule_; }
  const Parameterization& parameterization() const override { return *p_; }

 private:
  const NoiseSchedule& schedule_;
  double least_;
  std::shared_ptr<const Parameterization> p_;
};

class GaussianTeacher final : public ModelSource {
 public:
  OtherModel model(const std::string&) const override { return {std::make_shared<GaussianDenoiser>(0.5), nullptr}; }
  std::shared_ptr<const NoisyClassifier> classifier(const std::string&) const override { return nullptr; }
};

/// The exact student differs from its teacher by the error of one step of the solver: of third order for Heun, of second for Euler.
TEST(ConsistencyDistillation, TheExactStudentIsRightToTheSolversError) {
  const auto schedule = make<NoiseSchedule>("{type: angle, min_signal: 0.05, max_signal: 0.999}");
  const ExactStudent student(*schedule);
  const GaussianTeacher models;
  const auto loss = [&](const std::string& solver, int64_t intervals) {
    at::Generator random = at::detail::createCPUGenerator(1);
    brume::Training training{0, 1, {}, &models};
    const auto o = make<Objective>("{type: consistency_distillation, teacher: t, huber: 1.0e-9, solver: " + solver +
                                   ", intervals: " + std::to_string(intervals) + "}");
    return o->loss(student, images(256) * 0.5, {}, training, random).item<double>();
  };
  EXPECT_NEAR(std::log2(loss("euler", 20) / loss("euler", 40)), 2, 0.3);
  EXPECT_NEAR(std::log2(loss("heun", 20) / loss("heun", 40)), 3, 0.4);
  EXPECT_LT(loss("heun", 20), 0.3 * loss("euler", 20));
}

/// A model that is a teacher in a test.
class OneModel final : public ModelSource {
 public:
  explicit OneModel(const Pipeline& p) : p_(p) {}
  OtherModel model(const std::string& path) const override {
    if (path != "teacher.safetensors") throw ConfigError("no such file");
    return {p_.denoiser(), p_.options().noise};
  }
  std::shared_ptr<const NoisyClassifier> classifier(const std::string&) const override { throw ConfigError("no classifier"); }

 private:
  const Pipeline& p_;
};

TEST(ConsistencyDistillation, TrainsWithATeacherAndNotWithoutOne) {
  const std::vector<std::string> student{"model.variance=none",
                                         "sample.sampler=ddim",
                                         "model.noise={type: angle, min_signal: 0.05, max_signal: 0.999}",
                                         "model.parameterization={type: consistency, sigma_min: 0.04476615, sigma_data: 0.5}",
                                         "train.objective={type: consistency_distillation, teacher: teacher.safetensors}",
                                         "train.steps=4"};
  const Loaded l = load(student);
  std::vector<std::string> exact = student;
  exact[3] = "model.parameterization=x0";
  exact[4] = "train.objective=simple";
  exact.push_back("model.network=gaussian");
  const Pipeline teacher(load(exact).config.model, {});
  const OneModel models(teacher);
  const TempFolder folder;
  Trainer trainer(l.config, l.resolved, folder.path() / "run", {}, models);
  EXPECT_TRUE(trainer.run(nullptr));
  EXPECT_NE(error_of([&] {
              Trainer alone(l.config, l.resolved, folder.path() / "alone");
              alone.run(nullptr);
            }).find("teacher.safetensors"),
            std::string::npos);
}

/// Every objective trains a model that suits it.
class EveryObjective : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(EveryObjective, Trains) {
  std::vector<std::string> overrides = GetParam();
  overrides.insert(overrides.begin(), {"train.steps=2", "sample.sampler=ddim"});
  const Loaded l = load(overrides);
  const TempFolder folder;
  Trainer trainer(l.config, l.resolved, folder.path() / "run");
  EXPECT_TRUE(trainer.run(nullptr));
  const std::string lines = [&] {
    std::ifstream in(folder.file("run/metrics.jsonl"));
    return std::string(std::istreambuf_iterator<char>(in), {});
  }();
  EXPECT_NE(lines.find("\"loss\""), std::string::npos);
  EXPECT_EQ(lines.find("null"), std::string::npos) << lines;  // JSON's NaN
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, EveryObjective,
    testing::Values(std::vector<std::string>{"train.objective=vlb"},
                    std::vector<std::string>{"train.objective={type: vlb, time: loss_second_moment}", "model.noise=angle"},
                    std::vector<std::string>{"train.objective=hybrid", "model.variance=learned"},
                    std::vector<std::string>{"train.objective={type: simple, target: v, weighting: soft_min_snr, time: low_discrepancy}"},
                    std::vector<std::string>{"train.objective={type: flow, time: logit_normal}", "model.parameterization=flow",
                                             "model.variance=none"},
                    std::vector<std::string>{"train.objective=edm", "model.parameterization=edm", "model.variance=none",
                                             "model.network.noise_embedding={type: fourier, input: quarter_log}"},
                    std::vector<std::string>{"train.objective=consistency", "model.variance=none", "model.noise=angle",
                                             "model.parameterization={type: consistency, sigma_min: 0.3286841}"}));

TEST(Consistency, NeedsItsBoundary) {
  EXPECT_EQ(
      error_of([] {
        load({"model.variance=none", "sample.sampler=ddim", "train.objective=consistency"});
      }).substr(0, 125),
      "--set train.objective=consistency: train.objective: consistency needs a model that is the identity at the schedule's smallest");
}

}  // namespace
}  // namespace brume::test
