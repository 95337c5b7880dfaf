// Objectives that train networks of their own with the model: dmd, ddgan, ladd.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/core/joint_objective.h"
#include "brume/diffusion/model_files.h"
#include "brume/diffusion/pipeline.h"
#include "brume/train/trainer.h"
#include "brume/weights/weights_file.h"
#include "loaded.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

constexpr const char* tiny = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, zero_init: false}
  conditioner: {type: class_label, classes: 3}
  noise: flow
  parameterization: flow
train:
  data: {type: shapes, forms: [circle, square, cross], colours: [red]}
  batch: 4
  steps: 6
  ema: {decay: 0.9}
  preview: {count: 0}
sample: {sampler: consistency, spacing: trailing, steps: 2}
compute: {precision: fp32}
)";

Loaded load(const std::vector<std::string>& overrides) { return loaded(tiny, overrides); }

/// A folder with a model that was trained for two steps.
class Taught : public testing::Test {
 protected:
  Taught() : models_(builtins(), Compute{}, folder_.path()) {
    const Loaded l = load({"train.objective=flow", "train.steps=2"});
    Trainer(l.config, l.resolved, folder_.path() / "teacher").run(nullptr);
  }
  TempFolder folder_;
  ModelFiles models_;
};

struct Joint {
  std::string name;
  std::vector<std::string> settings;
};
void PrintTo(const Joint& joint, std::ostream* to) { *to << joint.name; }
const std::vector<Joint> joint{
    {"dmd", {"train.objective={type: dmd, teacher: teacher/model.safetensors, steps: 2, model_every: 2}"}},
    {"ddgan",
     {"train.objective={type: ddgan, steps: 2, r1_every: 2, discriminator: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: "
      "4}}",
      "model.conditioner={type: composite, of: [{type: class_label, classes: 3}, {type: latent, width: 8}]}",
      "model.network={type: dit, patch: 4, width: 16, depth: 1, heads: 2}", "sample.sampler=ddgan"}},
    {"ladd", {"train.objective={type: ladd, teacher: teacher/model.safetensors, steps: 2, width: 8}"}},
    {"dmd_by_adapters",
     {"train.objective={type: dmd, teacher: teacher/model.safetensors, steps: 2, model_every: 2}", "train.from=teacher/model.safetensors",
      "train.adapters=[{type: lora, rank: 2, targets: [convolutions]}]"}},
    {"ladd_by_adapters",
     {"train.objective={type: ladd, teacher: teacher/model.safetensors, steps: 2, width: 8}", "train.from=teacher/model.safetensors",
      "train.adapters=[{type: lora, rank: 2, targets: [convolutions]}]"}},
};

class EveryJointObjective : public Taught, public testing::WithParamInterface<Joint> {
 protected:
  NamedTensors trained(const std::string& name, const std::vector<int64_t>& stops, std::vector<std::string> more = {}) {
    more.insert(more.begin(), GetParam().settings.begin(), GetParam().settings.end());
    Loaded l = load(more);
    if (!l.config.train->from.empty()) l.config.train->from = folder_.path() / l.config.train->from;
    const std::filesystem::path run = folder_.path() / name;
    for (const int64_t stop : stops) {
      Trainer first(l.config, l.resolved, run, {}, models_);
      EXPECT_FALSE(first.run([&] { return first.step() == stop; }));
    }
    Trainer last(l.config, l.resolved, run, stops.empty() ? std::filesystem::path() : run / "training.safetensors", models_);
    EXPECT_TRUE(last.run(nullptr));
    return load_tensors((run / "training.safetensors").string());
  }
};

void expect_equal(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].name, b[i].name);
    EXPECT_TRUE(a[i].tensor.equal(b[i].tensor)) << a[i].name;
  }
}

TEST_P(EveryJointObjective, ResumesBitForBit) { expect_equal(trained("whole", {}), trained("halves", {3})); }

/// The model and each companion move, and what is not trained stays.
TEST_P(EveryJointObjective, TrainsAllItsNetworks) {
  const NamedTensors before = trained("one", {}, {"train.steps=1"}), after = trained("six", {});
  std::map<std::string, int> moved;
  for (size_t i = 0; i < after.size(); ++i)
    if (before[i].name == after[i].name && !before[i].tensor.equal(after[i].tensor))
      ++moved[after[i].name.substr(0, after[i].name.find('.'))];
  EXPECT_GE(moved.size(), 2U) << "only one network learns";
  for (const char* network : {"weights", "helpers"}) EXPECT_TRUE(moved.contains(network)) << network;
  for (const NamedTensor& t : after) {
    if (!t.tensor.is_floating_point()) continue;
    EXPECT_TRUE(std::isfinite(t.tensor.abs().sum().item<double>())) << t.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryJointObjective, testing::ValuesIn(joint), [](const auto& info) { return info.param.name; });

class Ladd : public Taught {
 protected:
  Ladd() : loaded_(load({"train.objective={type: ladd, teacher: teacher/model.safetensors, steps: 2, width: 8}"})) {}

  /// The objective with the heads of seed 5, for a model.
  std::unique_ptr<OpenObjective> open(const Pipeline& model, const std::string& yaml) {
    const ModelOptions& o = loaded_.config.model;
    const auto objective = std::dynamic_pointer_cast<const JointObjective>(make<Objective>(yaml));
    return objective->open({o.network_context(model.latent(), 5), o.network, model.network().weights(), at::kCPU, at::kFloat});
  }
  Tensor loss(const Pipeline& model, const OpenObjective& objective) {
    at::Generator random = at::detail::createCPUGenerator(3), data = at::detail::createCPUGenerator(8);
    const Tensor images = at::randn({4, 1, 8, 8}, data, at::TensorOptions().dtype(at::kFloat)).clamp(-1, 1);
    std::vector<Annotation> annotations(4);
    for (int64_t i = 0; i < 4; ++i) annotations[size_t(i)].label = i % 3;
    Training training{0, 1, {}, &models_};
    return model.loss(objective, {images, annotations}, training, random);
  }
  static double figure(const OpenObjective& objective, const std::string& name) {
    for (const auto& [key, value] : objective.figures())
      if (key == name) return value;
    return NAN;
  }
  const std::string yaml_ = "{type: ladd, teacher: teacher/model.safetensors, steps: 2, width: 8}";
  Loaded loaded_;
};

/// The model learns from what the heads say of its images, by the teacher: its gradient is that of the generator's loss.
TEST_F(Ladd, GradientIsThatOfTheGeneratorsLoss) {
  const Pipeline model(loaded_.config.model, {}, 1);
  const auto objective = open(model, yaml_);
  const at::AutoGradMode with_grad(true);
  Tensor bias;
  for (Weight& w : model.weights()) {
    w.tensor.set_requires_grad(w.trainable);
    if (w.name.ends_with("out.2.bias")) bias = w.tensor;
  }
  for (const Companion& c : objective->companions())
    for (const Weight& w : c.weights) Tensor(w.tensor).set_requires_grad(true);
  loss(model, *objective).backward();
  const double gradient = bias.grad().sum().item<double>(), eps = 1e-2;
  const auto moved = [&](double by) {
    {
      const at::NoGradGuard no_grad;
      bias.add_(by);
    }
    loss(model, *objective);
    return figure(*objective, "generator");
  };
  const double above = moved(eps), below = moved(-2 * eps);
  EXPECT_NEAR(gradient, (above - below) / (2 * eps), 0.02 * std::abs(gradient) + 1e-6);
  EXPECT_NE(gradient, 0);
}

TEST_F(Ladd, MistakesAreNamed) {
  const Pipeline model(loaded_.config.model, {}, 1);
  EXPECT_NE(
      error_of([&] { open(model, "{type: ladd, teacher: t, blocks: [middle_blok]}"); }).find("'middle_blok'; did you mean 'middle_block'"),
      std::string::npos);
  EXPECT_NE(error_of([&] { make<Objective>("{type: ladd, teacher: t, width: 7}"); }).find("width: must be even"), std::string::npos);
  EXPECT_NE(error_of([&] { load({"train.objective={type: ladd}"}); }).find("missing 'teacher'"), std::string::npos);
  const Loaded other = load({"model.network.channels=12", "train.objective=flow"});
  const Pipeline wide(other.config.model, {}, 1);
  loaded_ = other;
  const auto objective = open(wide, yaml_);
  EXPECT_NE(error_of([&] { loss(wide, *objective); }).find("has features of 8 channels, and its head takes 12"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
