// Laws of the objectives that need a whole model or a training: learned variance, the hybrid's stopped gradient, a memory that resumes,
// and consistency models taught by a teacher.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>

#include <cmath>

#include "diffusion/checkpoint.h"
#include "diffusion/pipeline.h"
#include "io/model_file.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "train/trainer.h"

namespace brume::test {
namespace {

constexpr const char* tiny = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, zero_init: false}
  noise: {type: linear, timesteps: 20, rescale: true}
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

struct Loaded {
  Config config;
  Value resolved;
};
Loaded load(const std::vector<std::string>& overrides = {}) {
  static Registry registry = builtins();
  Value root = parse_yaml(tiny, "tiny.yaml");
  for (const std::string& o : overrides) apply_override(root, o);
  Loaded l;
  l.config = read_configuration(registry, root, &l.resolved);
  return l;
}

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
  const Tensor l = model.loss(*o, images(16), std::vector<Annotation>(16), training, random);
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
  const Tensor together = model.sample(request, l.config.sample);
  request.batch = 1;
  EXPECT_TRUE(model.sample(request, l.config.sample).equal(together));
  EXPECT_TRUE(std::isfinite(together.sum().item<double>()));
}

TEST(LearnedVariance, MistakesAreFoundBeforeSampling) {
  EXPECT_EQ(
      error_of([] { load({"model.variance=none"}); }),
      "sample.sampler: takes the variance that the network gives (learned_range), and model.variance is none; set the sampler's variance "
      "to small or large, or train a model of variance: learned_range");
  EXPECT_EQ(
      error_of([] {
        load({"model.variance=none", "sample.sampler=ddim", "train.objective=hybrid"});
      }),
      "train.objective: hybrid trains a variance, and model.variance is none; set it to learned_range (or learned), or take the objective "
      "simple");
  Loaded l = load({"sample.sampler=ddim", "model.variance=none"});
  const Pipeline model(l.config.model, {}, 1);
  SampleOptions options = l.config.sample;
  options.sampler = make<Sampler>("{type: ddpm, variance: learned}");
  EXPECT_NE(error_of([&] { model.sample({}, options); }).find("model.variance is none"), std::string::npos);
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
  const io::NamedTensors a = io::load_tensors(folder.file("whole/training.safetensors")),
                         b = io::load_tensors(folder.file("halves/training.safetensors"));
  ASSERT_EQ(a.size(), b.size());
  bool history = false;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].name == b[i].name && a[i].tensor.equal(b[i].tensor)) << a[i].name;
    if (a[i].name == "objective.loss_counts") history = a[i].tensor.min().item<int64_t>() == 2;  // it did more than draw evenly
  }
  EXPECT_TRUE(history);
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

/// The student of an exact teacher learns where its paths end: one step gives the data's distribution.
TEST(ConsistencyDistillation, AStudentLearnsTheTeachersPaths) {
  const std::vector<std::string> student{"model.variance=none", "sample.sampler=ddim",
                                         "model.noise={type: angle, min_signal: 0.05, max_signal: 0.999}",
                                         "model.parameterization={type: consistency, sigma_min: 0.04476615, sigma_data: 0.5}",
                                         "train.objective={type: consistency_distillation, teacher: teacher.safetensors}"};
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

TEST(Consistency, NeedsItsBoundary) {
  EXPECT_EQ(error_of([] {
              load({"model.variance=none", "sample.sampler=ddim", "train.objective=consistency"});
            }).substr(0, 90),
            "train.objective: consistency needs a model that is the identity at the schedule's smallest");
}

}  // namespace
}  // namespace brume::test
