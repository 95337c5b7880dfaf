// The program as its user meets it: train, interrupt, resume, sample, and what it says when something is wrong.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "brume/image/image.h"
#include "brume/interop/import/import.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

constexpr const char* tiny = R"(
model:
  image: {channels: 3, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}
  conditioner: {type: class_label, classes: 5, dropout: 0.2}
  noise: cosine
  parameterization: v
train:
  data: {type: shapes}
  objective: {type: simple, target: v}
  batch: 4
  steps: 20
  preview: {count: 4, steps: 2}
  log_every: 5
sample:
  steps: 4
  guidance: [{type: cfg, scale: 2}, clip]
)";

/// A folder with tiny.yaml and a run of it, made once.
class Run : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    folder_->file("tiny.yaml", tiny);
    const Finished done = at({"train", "tiny.yaml", "--out", "run"});
    ASSERT_EQ(done.code, 0) << done.err;
  }
  static void TearDownTestSuite() { delete folder_; }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  static fs::path path(const std::string& name) { return folder_->path() / name; }
  static std::string model() { return "run/model.safetensors"; }

  /// The run's model, changed, under another name.
  template <class F>
  static std::string changed(const std::string& name, const F& change) {
    std::map<std::string, std::string> metadata;
    NamedTensors tensors = load_tensors(path(model()).string(), &metadata);
    change(tensors, metadata);
    write_safetensors(path(name).string(), tensors, metadata);
    return name;
  }
  static TempFolder* folder_;
};
TempFolder* Run::folder_ = nullptr;

TEST_F(Run, LeavesWhatItPromises) {
  for (const char* name : {"config.yaml", "metrics.jsonl", "model.safetensors", "training.safetensors", "samples/step_000020.png"})
    EXPECT_TRUE(fs::is_regular_file(path("run") / name)) << name;
  std::ifstream metrics(path("run/metrics.jsonl"));
  EXPECT_EQ(std::count(std::istreambuf_iterator<char>(metrics), {}, '\n'), 4);
  EXPECT_EQ(at({"check", "run/config.yaml"}).code, 0);
}

TEST_F(Run, SamplesNeedTheCheckpointOnly) {
  fs::create_directories(path("elsewhere"));
  fs::copy_file(path(model()), path("elsewhere/m.safetensors"), fs::copy_options::overwrite_existing);
  const Finished done = run_brume({"sample",       "m.safetensors",
                                   "--classes",    "star,#1,circle",
                                   "-n",           "6",
                                   "--steps",      "3",
                                   "--sampler",    "ddim",
                                   "--seed",       "5",
                                   "-o",           "out.png",
                                   "--frames",     "frames",
                                   "--strip",      "strip.png",
                                   "--trajectory", "t.safetensors"},
                                  {path("elsewhere")});
  ASSERT_EQ(done.code, 0) << done.err;
  for (const char* name : {"out.png", "frames/step_0003.png", "strip.png", "t.safetensors"})
    EXPECT_TRUE(fs::exists(path("elsewhere") / name)) << name;
  const NamedTensors t = load_tensors(path("elsewhere/t.safetensors").string());
  EXPECT_EQ(find(t, "x")->sizes(), (std::vector<int64_t>{4, 6, 3, 8, 8}));
  EXPECT_EQ(find(t, "x0")->sizes(), (std::vector<int64_t>{3, 6, 3, 8, 8}));
  EXPECT_EQ(find(t, "sigma")->numel(), 3);
}

TEST_F(Run, TheBatchChangesNothing) {
  for (const char* batch : {"1", "4"})
    ASSERT_EQ(at({"sample", model(), "-n", "5", "--batch", batch, "-o", std::string("b") + batch}).code, 0);
  for (int i = 0; i < 5; ++i) {
    const std::string name = "0000" + std::to_string(i) + ".png";
    EXPECT_EQ(read_image(path("b1/" + name).string()), read_image(path("b4/" + name).string())) << i;
  }
}

TEST_F(Run, GivenNoiseIsUsed) {
  ASSERT_EQ(at({"sample", model(), "-n", "2", "-o", "given", "--trajectory", "a.safetensors", "--seed", "9"}).code, 0);
  const NamedTensors a = load_tensors(path("a.safetensors").string());
  write_safetensors(path("noise.safetensors").string(), {{"noise", (*find(a, "x"))[0].contiguous()}});
  ASSERT_EQ(at({"sample", model(), "-n", "2", "-o", "given", "--trajectory", "b.safetensors", "--noise", "noise.safetensors"}).code, 0);
  const at::Tensor x = (*find(a, "x"))[4], y = (*find(load_tensors(path("b.safetensors").string()), "x"))[4];
  EXPECT_LT((x - y).abs().max().item<double>(), 0.1);
  EXPECT_EQ(at({"sample", model(), "-n", "3", "-o", "given", "--noise", "noise.safetensors"})
                .err.find("error: the initial noise has shape [2, 3, 8, 8], "
                          "expected [3, 3, 8, 8]"),
            0u);
}

TEST_F(Run, InterruptAndResume) {
  const std::vector<std::string> long_run{
      "timeout",   "--foreground", "--preserve-status",   "-s",    "INT", "4", BRUME_BINARY_DIR "/brume", "train",
      "tiny.yaml", "--set",        "train.steps=1000000", "--out", "long"};
  const Finished stopped = run(long_run, {folder_->path()});
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_NE(stopped.err.find("continue with: brume train --resume long/training.safetensors"), std::string::npos) << stopped.err;
  std::map<std::string, std::string> metadata;
  load_tensors(path("long/training.safetensors").string(), &metadata);
  const int64_t step = std::stoll(metadata.at("brume.step"));
  EXPECT_GT(step, 0);
  const Finished resumed = at({"train", "--resume", "long/training.safetensors", "--set", "train.steps=" + std::to_string(step + 3)});
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  load_tensors(path("long/training.safetensors").string(), &metadata);
  EXPECT_EQ(std::stoll(metadata.at("brume.step")), step + 3);
}

TEST_F(Run, ResumeRefusesAnotherModel) {
  const std::string before = read_text(path("run/training.safetensors"));
  const auto said = [](std::vector<std::string> settings) {
    std::vector<std::string> words{"train", "--resume", "run", "--out", "refused"};
    for (const std::string& s : settings) words.insert(words.end(), {"--set", s});
    const Finished done = at(words);
    EXPECT_EQ(done.code, 2);
    return done.err;
  };
  EXPECT_EQ(said({"model.noise=linear", "train.steps=25"}),
            "error: --set model.noise=linear: a training's model cannot be changed: model.noise.type is cosine and would be linear\n");
  EXPECT_EQ(said({"model.parameterization=eps", "model.network.channels=16"}),
            "error: --set model.network.channels=16: a training's model cannot be changed: model.network.channels is 8 and would be 16\n"
            "error: --set model.parameterization=eps: a training's model cannot be changed: model.parameterization.type is v and would be "
            "eps\n");
  EXPECT_FALSE(fs::exists(path("refused")));
  EXPECT_EQ(read_text(path("run/training.safetensors")), before);
}

TEST_F(Run, ResumeSaysWhatElseChanged) {
  const Finished done =
      at({"train", "--resume", "run", "--out", "on", "--set", "train.steps=22", "--set", "train.batch=2", "--set", "model.noise=cosine"});
  EXPECT_EQ(done.code, 0);
  EXPECT_TRUE(done.err.starts_with("run/training.safetensors: goes on with other settings: train.batch 4 -> 2, train.steps 20 -> 22\n"))
      << done.err;
  const Finished decaying =
      at({"train", "--resume", "run", "--out", "on2", "--set", "train.steps=21", "--set", "train.optimizer.decay=cosine"});
  EXPECT_TRUE(
      decaying.err.starts_with("run/training.safetensors: goes on with other settings: train.optimizer.decay.type constant -> cosine, "
                               "train.steps 20 -> 21 (the learning rate decays towards the new number)\n"))
      << decaying.err;
  folder_->file("again.yaml", tiny);  // names of classes come from the data
  const Finished same = at({"train", "again.yaml", "--resume", "run", "--out", "on3", "--set", "train.steps=21"});
  EXPECT_EQ(same.code, 0) << same.err;
  EXPECT_TRUE(same.err.starts_with("run/training.safetensors: goes on with other settings: train.steps 20 -> 21\n")) << same.err;
}

TEST_F(Run, NothingIsLeftOfAFinishedTraining) {
  const Finished done = at({"train", "--resume", "run", "--out", "elsewhere_run"});
  EXPECT_EQ(done.code, 0);
  EXPECT_EQ(done.err, "run/training.safetensors: at step 20 of 20: nothing to do\n");
  EXPECT_FALSE(fs::exists(path("elsewhere_run")));
}

TEST_F(Run, OverwritingNeedsDataFirst) {
  ASSERT_EQ(at({"train", "tiny.yaml", "--out", "kept", "--set", "train.steps=1"}).code, 0);
  const std::string before = read_text(path("kept/model.safetensors"));
  EXPECT_EQ(at({"train", "tiny.yaml", "--out", "kept", "--overwrite", "--set", "train.data={type: idx, images: absent.gz}"}).code, 2);
  EXPECT_EQ(read_text(path("kept/model.safetensors")), before);
  EXPECT_EQ(at({"train", "tiny.yaml", "--out", "kept", "--overwrite", "--set", "train.steps=2"}).code, 0);
  EXPECT_FALSE(fs::exists(path("kept/samples/step_000001.png")));
  EXPECT_TRUE(fs::exists(path("kept/samples/step_000002.png")));
}

TEST_F(Run, NoRoomForACheckpointLeavesThePreviousOne) {
  ASSERT_EQ(at({"train", "tiny.yaml", "--out", "full"}).code, 0);
  const std::string before = read_text(path("full/model.safetensors"));
  const Finished done =
      run({"sh", "-c", "ulimit -f 16; exec " BRUME_BINARY_DIR "/brume train --resume full --set train.steps=25"}, {folder_->path()});
  EXPECT_EQ(done.code, 2) << done.err;
  EXPECT_NE(done.err.find("error: full: a checkpoint of this training needs a file of "), std::string::npos) << done.err;
  EXPECT_NE(done.err.find(" and the limit on file sizes (ulimit -f) is 8.2 kB\n"), std::string::npos) << done.err;
  EXPECT_EQ(read_text(path("full/model.safetensors")), before);
  EXPECT_EQ(at({"sample", "full/model.safetensors", "-n", "1", "-o", "one.png"}).code, 0);
}

TEST_F(Run, ClassesThatAreNot) {
  EXPECT_EQ(at({"sample", model(), "--classes", "7"}).err, "error: --classes: class 7 is out of range: this model has 5 classes, 0 to 4\n");
  EXPECT_EQ(at({"sample", model(), "--classes", "cirlce"}).err, "error: --classes: no class 'cirlce'; did you mean 'circle'?\n");
}

TEST_F(Run, OverridesThatContradictTheCheckpoint) {
  EXPECT_EQ(at({"sample", model(), "--set", "model.network.channels=16"}).err,
            "error: --set model.network.channels=16: run/model.safetensors has model.network.channels = 8; a checkpoint's model cannot be "
            "changed\n");
  EXPECT_EQ(at({"sample", model(), "-n", "1", "-o", "same.png", "--set", "model.network.channels=8"}).code, 0);
  EXPECT_EQ(at({"sample", model(), "--sampler", "ddmi"}).err,
            "error: --sampler ddmi: sample.sampler: unknown sampler 'ddmi'; did you mean 'ddim'?\n");
}

TEST_F(Run, BrokenCheckpoints) {
  const std::string whole = read_text(path(model()));
  folder_->file("cut.safetensors", whole.substr(0, whole.size() - 1000));
  const Finished cut = at({"sample", "cut.safetensors"});
  EXPECT_EQ(cut.code, 2);
  const auto bytes = [](size_t n) { return std::to_string(n); };
  const size_t data = whole.size() - 8 - *reinterpret_cast<const uint64_t*>(whole.data());
  EXPECT_EQ(cut.err, "error: cut.safetensors: is truncated: its tensors have " + bytes(data) + " bytes, " + bytes(data - 1000) +
                         " are there; missing bytes: 1000\n");
  folder_->file("text.safetensors", "this is not a model, whatever its name says");
  EXPECT_NE(at({"sample", "text.safetensors"}).err.find("this is"), std::string::npos);
  EXPECT_EQ(at({"sample", "absent.safetensors"}).code, 2);
}

TEST_F(Run, CheckpointsOfAnotherVersionOrModel) {
  const std::string newer = changed("newer.safetensors", [](auto&, auto& m) { m["brume.format"] = "2", m["brume.version"] = "9.0"; });
  EXPECT_EQ(at({"sample", newer}).err,
            "error: newer.safetensors: written by brume 9.0 in model format 2; this is brume 0.2.0, which reads up to format 1\n");
  const std::string lacking = changed("lacking.safetensors", [](auto& t, auto&) { t.erase(t.begin()); });
  EXPECT_EQ(at({"sample", lacking}).err, "error: lacking.safetensors: lacks the tensor 'network.time_embed.0.weight' [32, 8]\n");
  const std::string foreign = changed("foreign.safetensors", [](auto&, auto& m) { m.clear(); });
  std::string families;
  for (const Family& f : brume::families()) families += (families.empty() ? "" : ", ") + std::string(f.name);
  const std::string said = at({"sample", foreign}).err,
                    begin = "error: foreign.safetensors: is of no family that brume imports (" + families + "); it holds ";
  EXPECT_TRUE(said.starts_with(begin)) << said;
  EXPECT_NE(said.find(" tensors: 'network.time_embed.0.weight', "), std::string::npos) << said;
}

TEST_F(Run, ADataSetThatIsNotThere) {
  const Finished done = at({"train", "tiny.yaml", "--out", "nodata", "--set", "train.data={type: idx, images: absent.gz}"});
  EXPECT_EQ(done.code, 2);
  EXPECT_NE(done.err.find("absent.gz"), std::string::npos) << done.err;
  EXPECT_FALSE(fs::exists(path("nodata")));
}

TEST_F(Run, AllMistakesAtOnce) {
  folder_->file("wrong.yaml", "model:\n  network: {type: unet, chanels: 8}\nsample: {steps: 0, sampler: {type: ddim, eta: 1.5}}\n");
  EXPECT_EQ(at({"check", "wrong.yaml"}).err,
            "error: wrong.yaml:2:25: model.network: unknown key 'chanels'; did you mean 'channels'?\n"
            "error: wrong.yaml:3:17: sample: steps = 0 is outside [1, 1000000]\n"
            "error: wrong.yaml:3:47: sample.sampler: eta = 1.5 is outside [0, 1]\n");
}

TEST_F(Run, ANetworkWithoutWeightsNeedsNoCheckpoint) {
  folder_->file("gaussian.yaml",
                "model:\n  image: {channels: 1, height: 8, width: 8}\n  network: {type: gaussian, mean: 0.5, std: 0.001}\n"
                "  parameterization: x0\nsample: {steps: 4}\n");
  ASSERT_EQ(at({"sample", "gaussian.yaml", "-n", "1", "-o", "gaussian.png"}).code, 0);
  for (const uint8_t v : read_image(path("gaussian.png").string(), 1).pixels) EXPECT_NEAR(v, 191, 2);
  EXPECT_EQ(at({"sample", "tiny.yaml"}).err,
            "error: tiny.yaml: its network has weights; train it, then sample the run's model.safetensors\n");
}

TEST(OwnSteps, AreNotRecorded) {
  const std::string gaussian = (std::filesystem::path(BRUME_SOURCE_DIR) / "configs/experiments/gaussian.yaml").string();
  const TempFolder folder;
  const std::string out = (folder.path() / "out.png").string();
  for (const char* sampler : {"rk45", "dpm_adaptive", "dpm_fast"}) {
    const Finished plain = run_brume({"sample", gaussian, "-n", "3", "--sampler", sampler, "-o", out});
    EXPECT_EQ(plain.code, 0) << plain.err;
    const Finished recorded = run_brume({"sample", gaussian, "-n", "3", "--sampler", sampler, "-o", out, "--frames", out + "_frames"});
    EXPECT_EQ(recorded.code, 2);
    EXPECT_EQ(
        recorded.err,
        "error: --frames, --strip and --trajectory need a sampler that takes the steps it is given; this one takes steps of its own\n");
  }
}

TEST_F(Run, InspectListsATensorALine) {
  const Finished done = at({"inspect", model()});
  EXPECT_EQ(done.code, 0);
  EXPECT_NE(done.out.find("network.time_embed.0.weight"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
