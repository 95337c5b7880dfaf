// Training and sampling as a whole, on a model so small that 200 steps take seconds.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <optional>
#include <thread>

#include "brume/config/plugin_loader.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/train/trainer.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "loaded.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

constexpr const char* tiny = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: [4], heads: 2, groups: 8, dropout: 0.1}
  conditioner: {type: class_label, classes: 5, dropout: 0.2}
  noise: cosine
  parameterization: v
train:
  data: {type: shapes}
  objective: {type: simple, target: v, weighting: min_snr}
  optimizer: {type: adamw, lr: 2.0e-3, warmup: 10, decay: cosine}
  batch: 8
  steps: 200
  ema: {decay: 0.95}
  preview: {count: 0}
  log_every: 50
  checkpoint_every: 1000
sample:
  sampler: {type: ddim, eta: 0.5}
  steps: 4
  guidance: [{type: cfg, scale: 2}, clip]
)";

Loaded load(const std::string& precision) { return loaded(tiny, {"compute.precision=" + precision}); }

std::string trained(const TempFolder& folder, const std::string& precision) {
  const Loaded l = load(precision);
  const std::string directory = folder.file("whole_" + precision);
  Trainer trainer(l.config, l.resolved, directory);
  EXPECT_TRUE(trainer.run(nullptr));
  return directory;
}

bool same_file_tensors(const std::string& a, const std::string& b) {
  const NamedTensors x = load_tensors(a), y = load_tensors(b);
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i)
    if (x[i].name != y[i].name || !x[i].tensor.equal(y[i].tensor)) return false;
  return true;
}

std::unique_ptr<Pipeline> opened(const std::string& directory, const Loaded& l) {
  auto pipeline = std::make_unique<Pipeline>(l.config.model, resolve_compute(l.config.compute));
  load_weights(directory + "/model.safetensors", pipeline->weights());
  pipeline->freeze();
  return pipeline;
}

SampleRequest ask(int64_t count, int64_t batch, uint64_t seed) {
  SampleRequest r;
  for (int64_t i = 0; i < count; ++i) r.images.push_back({i % 5, ""});
  r.batch = batch;
  r.seed = seed;
  return r;
}

class Training : public testing::TestWithParam<const char*> {};

TEST_P(Training, ResumesBitForBit) {
  const TempFolder folder;
  const std::string whole = trained(folder, GetParam()), halves = folder.file("halves");
  const Loaded l = load(GetParam());
  {
    Trainer first(l.config, l.resolved, halves);
    EXPECT_FALSE(first.run([&] { return first.step() == 100; }));
  }
  const Value stored = training_configuration(halves + "/training.safetensors");
  EXPECT_EQ(dump_yaml(stored), dump_yaml(training_configuration(whole + "/training.safetensors")));
  Trainer second(l.config, l.resolved, halves, halves + "/training.safetensors");
  EXPECT_EQ(second.step(), 100);
  EXPECT_TRUE(second.run(nullptr));
  EXPECT_TRUE(same_file_tensors(whole + "/model.safetensors", halves + "/model.safetensors"));
  EXPECT_TRUE(same_file_tensors(whole + "/training.safetensors", halves + "/training.safetensors"));
}

TEST_P(Training, AnImageDoesNotDependOnItsBatch) {
  const TempFolder folder;
  const Loaded l = load(GetParam());
  const auto pipeline = opened(trained(folder, GetParam()), l);
  for (const bool guided : {true, false}) {
    SampleOptions options = l.config.sample;
    if (!guided) options.guidance.clear();
    const Tensor one_by_one = sample_images(*pipeline, ask(16, 1, 3), options);
    EXPECT_GT(one_by_one.abs().max().item<double>(), 0.1);
    for (const int64_t batch : {2, 3, 5, 16})
      EXPECT_TRUE(sample_images(*pipeline, ask(16, batch, 3), options).equal(one_by_one)) << batch << guided;
    EXPECT_FALSE(sample_images(*pipeline, ask(16, 16, 4), options).equal(one_by_one));
  }
}

TEST_P(Training, EightThreadsSampleWhatOneDoes) {
  const TempFolder folder;
  const Loaded l = load(GetParam());
  const auto pipeline = opened(trained(folder, GetParam()), l);
  std::vector<Tensor> serial, parallel(8);
  for (uint64_t i = 0; i < 8; ++i) serial.push_back(sample_images(*pipeline, ask(3, 2, i), l.config.sample));
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 8; ++i) threads.emplace_back([&, i] { parallel[i] = sample_images(*pipeline, ask(3, 2, i), l.config.sample); });
  for (std::thread& t : threads) t.join();
  for (size_t i = 0; i < 8; ++i) EXPECT_TRUE(serial[i].equal(parallel[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Precisions, Training, testing::Values("fp32", "bf16"), [](const auto& info) { return std::string(info.param); });

TEST(Training, LearnsAndAgreesAcrossPrecisions) {
  const TempFolder folder;
  const auto losses = [&](const std::string& precision) {
    std::ifstream in(trained(folder, precision) + "/metrics.jsonl");
    std::vector<double> all;
    for (std::string line; std::getline(in, line);) all.push_back(std::stod(line.substr(line.find("\"loss\":") + 7)));
    return all;
  };
  const std::vector<double> full = losses("fp32"), half = losses("bf16");
  ASSERT_EQ(full.size(), 4u);
  EXPECT_LT(full.back(), 0.9 * full.front());
  for (size_t i = 0; i < full.size(); ++i) EXPECT_NEAR(half[i], full[i], 0.05 * full[i]);
}

TEST(Training, RefusesADirectoryThatHoldsOne) {
  const TempFolder folder;
  folder.file("run/training.safetensors", "x");
  const Loaded l = load("fp32");
  EXPECT_EQ(without(error_of([&] { Trainer(l.config, l.resolved, folder.path() / "run"); }), folder),
            "run: holds a training already; resume it, overwrite it, or name another directory");
}

TEST(Training, OverwritingLosesNothingBeforeTheNewRunIsThere) {
  const TempFolder folder;
  folder.file("run/training.safetensors", "x");
  folder.file("run/model.safetensors", "precious");
  folder.file("run/samples/step_000100.png", "old");
  folder.file("run/samples/mine.png", "mine");
  Loaded l = load("fp32");
  const auto start = [&] { Trainer(l.config, l.resolved, folder.path() / "run", {}, no_models(), true); };
  const Deferred<Dataset> good = l.config.train->data;
  l.config.train->data = create_deferred<Dataset>(builtins(), parse_yaml("{type: idx, images: absent.gz}", "test"));
  EXPECT_NE(error_of(start).find("absent.gz"), std::string::npos);
  for (const char* name : {"run/training.safetensors", "run/model.safetensors", "run/samples/step_000100.png"})
    EXPECT_TRUE(std::filesystem::exists(folder.path() / name)) << name;
  l.config.train->data = good;
  EXPECT_EQ(error_of(start), "no error");
  for (const char* name : {"run/training.safetensors", "run/model.safetensors", "run/samples/step_000100.png"})
    EXPECT_FALSE(std::filesystem::exists(folder.path() / name)) << name;
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "run/samples/mine.png"));
}

/// An objective whose loss is not finite at one step.
class OnceInfinite final : public Objective {
 public:
  OnceInfinite(std::shared_ptr<const Objective> inner, int64_t step) : inner_(std::move(inner)), step_(step) {}
  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, brume::Training& training,
              at::Generator& random) const override {
    const Tensor loss = inner_->loss(model, x0, condition, training, random);
    return training.step == step_ ? loss / 0.0 : loss;
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return inner_->memory(schedule); }

 private:
  std::shared_ptr<const Objective> inner_;
  int64_t step_;
};

TEST(Training, AStepThatIsNotFiniteCountsInNoFigure) {
  const TempFolder folder;
  Loaded l = load("fp32");
  l.config.train->objective = std::make_shared<OnceInfinite>(l.config.train->objective, 3);
  l.config.train->steps = 20;
  l.config.train->log_every = 10;
  Trainer trainer(l.config, l.resolved, folder.path() / "run");
  int64_t calls = 0;
  EXPECT_TRUE(trainer.run({.progress = [&](const TrainProgress& p) {
    ++calls;
    EXPECT_EQ(p.skipped, p.step < 4 ? 0 : 1) << p.step;
    EXPECT_TRUE(p.loss && std::isfinite(*p.loss)) << p.step;
  }}));
  EXPECT_EQ(calls, 20);
  std::ifstream in(folder.path() / "run/metrics.jsonl");
  std::string first, second;
  std::getline(in, first), std::getline(in, second);
  EXPECT_NE(first.find("\"skipped_steps\":1.0"), std::string::npos) << first;
  EXPECT_EQ(first.find("\"loss\":null"), std::string::npos) << first;
  EXPECT_EQ(second.find("skipped_steps"), std::string::npos) << second;
}

/// A rate that grows without end: the loss does after a while, and the checkpoint of before is kept, whatever `keep` says.
TEST(Training, ALossThatGrowsIsSaidAndTheCheckpointBeforeIsKept) {
  const TempFolder folder;
  for (const std::string keep : {"1", "2"}) {
    const Loaded l = loaded(tiny, {"compute.precision=fp32", "train.optimizer.lr=100", "train.optimizer.warmup=400", "train.steps=250",
                                   "train.optimizer.decay=constant", "train.checkpoint_every=5", "train.keep=" + keep});
    std::string said;
    const std::string directory = folder.file("grows_" + keep);
    Trainer trainer(l.config, l.resolved, directory);
    trainer.run(TrainCallbacks{.warn = [&](const std::string& text) { said += text + "\n"; }});
    const size_t at = said.find("the training diverges: the mean of the loss has grown from ");
    ASSERT_NE(at, said.npos) << said;
    EXPECT_EQ(said.find("the training diverges", at + 1), said.npos) << "it is said once";
    const size_t place = said.find("checkpoints/step_", at);
    ASSERT_NE(place, said.npos) << said;
    const std::string kept = directory + "/" + said.substr(place, 23);
    EXPECT_TRUE(std::filesystem::exists(kept + "/training.safetensors")) << kept;
    EXPECT_LT(training_step(kept + "/training.safetensors"), std::stol(said.substr(said.find("step ") + 5)));
  }
}

TEST(Training, DamagedTrainingFiles) {
  const TempFolder folder;
  Loaded l = load("fp32");
  l.config.train->steps = 1;
  { Trainer(l.config, l.resolved, folder.path() / "run").run(nullptr); }
  const std::string whole = (folder.path() / "run/training.safetensors").string(), bad = folder.file("bad.safetensors");
  std::map<std::string, std::string> metadata;
  const NamedTensors tensors = load_tensors(whole, &metadata);
  const auto said = [&](const std::string& key, const std::optional<std::string>& value, const auto& read) {
    std::map<std::string, std::string> changed = metadata;
    changed.erase(key);
    if (value) changed[key] = *value;
    write_safetensors(bad, tensors, changed);
    return without(error_of(read), folder);
  };
  const auto resume = [&] { Trainer(l.config, l.resolved, folder.path() / "run", bad); };
  EXPECT_EQ(said("brume.step", "-7", resume), "bad.safetensors: is damaged: its metadata 'brume.step' is '-7', expected a count from 0 on");
  EXPECT_EQ(said("brume.step", "many", resume),
            "bad.safetensors: is damaged: its metadata 'brume.step' is 'many', expected a count from 0 on");
  EXPECT_EQ(said("brume.step", {}, resume), "bad.safetensors: is damaged: its metadata has no 'brume.step'");
  const auto configuration = [&] { training_configuration(bad); };
  EXPECT_EQ(said("brume.format", "one", configuration),
            "bad.safetensors: is damaged: its metadata 'brume.format' is 'one', expected a count from 0 on");
  EXPECT_EQ(said("brume.format", {}, configuration), "bad.safetensors: is damaged: its metadata has no 'brume.format'");
  EXPECT_EQ(said("brume.config", {}, configuration),
            "bad.safetensors: not a training file (resuming needs training.safetensors, not the model)");
}

TEST(Training, ClassesOfModelAndDataMustAgree) {
  const TempFolder folder;
  Loaded l = load("fp32");
  l.config.model.conditioner = make<Conditioner>("{type: class_label, classes: 7}");
  EXPECT_EQ(error_of([&] { Trainer(l.config, l.resolved, folder.path() / "run"); }),
            "model.conditioner has 7 classes and train.data has 5");
}

TEST(Sampling, BatchNoiseNeedsTheWholeBatch) {
  const Loaded l = load("fp32");
  const Pipeline pipeline(l.config.model, resolve_compute(l.config.compute));
  SampleOptions options = l.config.sample;
  options.noise_order = NoiseOrder::batch;
  EXPECT_EQ(error_of([&] { sample_images(pipeline, ask(8, 4, 0), options); }),
            "noise order 'batch' draws all 8 images at once; raise the batch from 4 or use per_image");
}

}  // namespace
}  // namespace brume::test
