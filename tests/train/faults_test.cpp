// What a training does when something goes wrong: nothing but the step under way is lost.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "brume/config/yaml.h"
#include "brume/core/guidance.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/train/checkpoints.h"
#include "brume/train/trainer.h"
#include "brume/weights/weights_file.h"
#include "loaded.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

constexpr const char* tiny = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, dropout: 0.1}
  conditioner: {type: class_label, classes: 5, dropout: 0.2}
train:
  data: {type: shapes}
  optimizer: {type: adamw, warmup: 10}
  batch: 4
  steps: 12
  preview: {count: 0}
  log_every: 1
  checkpoint_every: 4
  workers: 0
sample: {steps: 4}
)";

Loaded load(const std::vector<std::string>& settings = {}) { return loaded(tiny, settings); }

bool same(const fs::path& a, const fs::path& b) {
  const NamedTensors x = load_tensors(a.string()), y = load_tensors(b.string());
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i)
    if (x[i].name != y[i].name || !x[i].tensor.equal(y[i].tensor)) return false;
  return true;
}

std::vector<std::string> entries(const fs::path& folder) {
  std::vector<std::string> names;
  if (fs::exists(folder))
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// An objective that throws at one step.
class ThrowsAt final : public Objective {
 public:
  ThrowsAt(std::shared_ptr<const Objective> inner, int64_t step) : inner_(std::move(inner)), step_(step) {}
  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, brume::Training& training,
              at::Generator& random) const override {
    if (training.step == step_) throw ConfigError("a truncated image");
    return inner_->loss(model, x0, condition, training, random);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return inner_->memory(schedule); }

 private:
  std::shared_ptr<const Objective> inner_;
  int64_t step_;
};

/// A guidance whose denoiser calls `called` first.
class Watched final : public Guidance {
 public:
  explicit Watched(std::function<void()> called) : called_(std::move(called)) {}
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<Inner>(std::move(inner), called_);
  }

 private:
  class Inner final : public Denoiser {
   public:
    Inner(std::shared_ptr<const Denoiser> inner, std::function<void()> called) : inner_(std::move(inner)), called_(std::move(called)) {}
    Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
      called_();
      return inner_->denoise(x, sigma, condition);
    }

   private:
    std::shared_ptr<const Denoiser> inner_;
    std::function<void()> called_;
  };
  std::function<void()> called_;
};

TEST(Faults, AnErrorInMidRunSavesBeforeLeaving) {
  const TempFolder folder;
  const Loaded l = load();
  { EXPECT_TRUE(Trainer(l.config, l.resolved, folder.path() / "whole").run(nullptr)); }
  Loaded broken = load();
  broken.config.train->objective = std::make_shared<ThrowsAt>(l.config.train->objective, 10);
  const fs::path run = folder.path() / "run";
  {
    Trainer trainer(broken.config, broken.resolved, run);
    EXPECT_EQ(error_of([&] { trainer.run(nullptr); }), "a truncated image");
    EXPECT_EQ(trainer.saved_step(), 10);
  }
  EXPECT_EQ(training_step(run / "training.safetensors"), 10);
  Trainer rest(l.config, l.resolved, run, run / "training.safetensors");
  EXPECT_TRUE(rest.run(nullptr));
  EXPECT_TRUE(same(folder.path() / "whole/training.safetensors", run / "training.safetensors"));
  EXPECT_TRUE(same(folder.path() / "whole/model.safetensors", run / "model.safetensors"));
}

TEST(Faults, AGridThatFailsIsAWarning) {
  const TempFolder folder;
  Loaded l = load({"train.preview.count=2", "train.preview.every=5"});
  l.config.sample.guidance.push_back(std::make_shared<Watched>([] { throw std::runtime_error("no grid today"); }));
  Trainer trainer(l.config, l.resolved, folder.path() / "run");
  std::vector<std::string> warnings;
  TrainCallbacks callbacks;
  callbacks.warn = [&](const std::string& text) { warnings.push_back(text); };
  EXPECT_TRUE(trainer.run(callbacks));
  EXPECT_EQ(trainer.step(), 12);
  const auto said = [](int step) {
    return "step " + std::to_string(step) + ": the sample grid failed, and the training goes on: no grid today";
  };
  EXPECT_EQ(warnings, (std::vector<std::string>{said(5), said(10), said(12)}));
}

TEST(Faults, AStopIsHeardWithinOneCallOfTheNetwork) {
  const TempFolder folder;
  Loaded l = load({"train.preview.count=4", "train.preview.every=5"});
  bool stop = false;
  int calls = 0;
  l.config.sample.guidance.push_back(std::make_shared<Watched>([&] {
    ++calls;
    stop = stop || calls == 2;
  }));
  Trainer trainer(l.config, l.resolved, folder.path() / "run");
  EXPECT_FALSE(trainer.run([&] { return stop; }));
  EXPECT_EQ(calls, 2);  // it is not called again
  EXPECT_EQ(trainer.step(), 5);
  EXPECT_EQ(training_step(folder.path() / "run/training.safetensors"), 5);
}

TEST(Faults, ASecondTrainingInADirectoryIsRefused) {
  const TempFolder folder;
  const Loaded l = load();
  const fs::path run = folder.path() / "run";
  const std::string refused = "run: another process trains in this directory; wait for it, or name another directory";
  const auto second = [&](bool overwrite) {
    return without(error_of([&] { Trainer(l.config, l.resolved, run, {}, no_models(), overwrite); }), folder);
  };
  {
    Trainer first(l.config, l.resolved, run);
    EXPECT_EQ(second(false), refused);
    EXPECT_EQ(second(true), refused);
    fs::create_directory_symlink(run, folder.path() / "link");
    EXPECT_EQ(without(error_of([&] { Trainer(l.config, l.resolved, folder.path() / "link", {}, no_models(), true); }), folder),
              "link: another process trains in this directory; wait for it, or name another directory");
    EXPECT_TRUE(first.run([&] {
      EXPECT_EQ(second(true), refused);
      return false;
    }));
    EXPECT_EQ(second(true), "no error");  // run() has ended
  }
  EXPECT_EQ(second(true), "no error");
}

TEST(Faults, AKilledTrainingLocksNothingAndItsFilesGo) {
  const TempFolder folder;
  const Loaded l = load();
  const fs::path run = folder.path() / "run";
  fs::create_directories(run / "samples");
  const pid_t child = fork();
  if (child == 0) {
    const Lock lock = lock_run(run);
    AtomicFile model((run / "model.safetensors").string()), grid((run / "samples/step_000001.png").string());
    model.write("half"), grid.write("half");
    kill(getpid(), SIGKILL);
  }
  waitpid(child, nullptr, 0);
  ASSERT_EQ(entries(run).size(), 2u);
  ASSERT_EQ(entries(run / "samples").size(), 1u);
  const Trainer trainer(l.config, l.resolved, run);
  EXPECT_EQ(entries(run), (std::vector<std::string>{"config.yaml", "samples"}));
  EXPECT_EQ(entries(run / "samples"), std::vector<std::string>{});
}

TEST(Faults, ASparedCheckpointStaysUntilItIsReleased) {
  const TempFolder folder;
  const Loaded l = load({"train.steps=3", "train.checkpoint_every=1", "train.keep=2"});
  const fs::path run = folder.path() / "run";
  Trainer(l.config, l.resolved, run).run(nullptr);
  const KeepOptions last_alone;
  spare_checkpoint(run, 2);
  prune_checkpoints(run, 3, last_alone);
  EXPECT_EQ(entries(run / "checkpoints"), (std::vector<std::string>{"step_000002", "step_000003"}));
  prune_spared(run, 2);  // which was kept before, as it is again
  EXPECT_EQ(entries(run / "checkpoints" / "step_000002"), (std::vector<std::string>{"model.safetensors", "training.safetensors"}));
  prune_checkpoints(run, 3, last_alone);
  EXPECT_EQ(entries(run / "checkpoints"), (std::vector<std::string>{"step_000003"}));
  remove_checkpoints(run);
  spare_checkpoint(run, 3);
  prune_spared(run, 3);
  EXPECT_FALSE(fs::exists(run / "checkpoints"));
}

TEST(Faults, KeepsTheCheckpointsThatAreAskedFor) {
  const TempFolder folder;
  const auto kept = [&](const std::string& name, const std::vector<std::string>& settings) {
    std::vector<std::string> all{"train.steps=10", "train.checkpoint_every=1"};
    all.insert(all.end(), settings.begin(), settings.end());
    const Loaded l = load(all);
    Trainer(l.config, l.resolved, folder.path() / name).run(nullptr);
    return entries(folder.path() / name / "checkpoints");
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(kept("one", {}), Names{});
  EXPECT_EQ(kept("three", {"train.keep=3"}), (Names{"step_000008", "step_000009", "step_000010"}));
  EXPECT_EQ(kept("every", {"train.keep_every=4"}), (Names{"step_000004", "step_000008", "step_000010"}));
  EXPECT_EQ(kept("first", {"train.keep_best=min images_per_second_"}), (Names{"step_000010"}));  // there is no such figure
  EXPECT_EQ(kept("best", {"train.keep_best=max step"}), (Names{"step_000010"}));
  EXPECT_EQ(kept("worst", {"train.keep_best=min step"}), (Names{"step_000001", "step_000010"}));
  for (const char* file : {"model.safetensors", "training.safetensors"})
    EXPECT_TRUE(same(folder.path() / "three/checkpoints/step_000010" / file, folder.path() / "three" / file));
  EXPECT_EQ(training_step(folder.path() / "three/checkpoints/step_000008/training.safetensors"), 8);
  EXPECT_EQ(run_of("runs/x/checkpoints/step_000008/training.safetensors"), "runs/x");
  EXPECT_EQ(run_of("runs/x/training.safetensors"), "runs/x");
  EXPECT_EQ(error_of([] { load({"train.keep_best=loss"}); }),
            "--set train.keep_best=loss: train.keep_best: 'loss' is not max or min and the name of a figure, like 'min test_loss'");
}

TEST(Faults, NoRoomIsKnownBeforeTheFirstStep) {
  const TempFolder folder;
  const TrainOptions t = *load().config.train;
  const fs::path run = folder.path() / "run/deep";
  const std::string said = without(error_of([&] { check_room(run, {uint64_t(1) << 60, uint64_t(1) << 61}, t, 0); }), folder);
  EXPECT_TRUE(said.starts_with("run/deep: a checkpoint of this training needs 5764607523.0 GB while it is written, and the disk has "))
      << said;
  EXPECT_EQ(error_of([&] { check_room(run, {1000, 2000}, t, 0); }), "no error");
}

TEST(Faults, ACheckpointThatCannotBeWrittenLeavesThePreviousOne) {
  const TempFolder folder;
  Loaded l = load();
  Trainer trainer(l.config, l.resolved, folder.path() / "run");
  const fs::path model = folder.path() / "run/model.safetensors";
  std::string before;
  rlimit usual{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &usual), 0);
  const auto ignored = signal(SIGXFSZ, SIG_IGN);
  const std::string error = error_of([&] {
    trainer.run({.progress = [&](const TrainProgress& p) {
      if (p.step != 6) return;  // a checkpoint of step 4 is there; the next one does not fit
      before = MappedFile::open(model.string())->bytes();
      const rlimit small{8192, usual.rlim_max};
      ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    }});
  });
  setrlimit(RLIMIT_FSIZE, &usual);
  signal(SIGXFSZ, ignored);
  EXPECT_NE(error.find("run/model.safetensors"), std::string::npos) << error;
  EXPECT_NE(error.find("previous file is unchanged"), std::string::npos) << error;
  ASSERT_FALSE(before.empty());
  EXPECT_EQ(std::string(MappedFile::open(model.string())->bytes()), before);
}

}  // namespace
}  // namespace brume::test
