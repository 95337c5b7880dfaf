// brume sweep, brume runs, brume report: a sweep that is killed goes on, and ends with the same table.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

constexpr const char* sweep = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4}
  parameterization: v
train:
  data: shapes
  optimizer: adamw
  batch: 4
  steps: 40
  log_every: 10
  log: [metrics, tensorboard]
  checkpoint_every: 5
  validation: {data: shapes, images: 8, levels: 2}
  preview: {count: 4, steps: 2, every: 20}
sample: {steps: 2}
compute: {threads: 1, precision: fp32}
sweep:
  grid: {train.optimizer.lr: [1.0e-3, 1.0e-2]}
  repeat: 3
  commands: ["likelihood {run}/model.safetensors --data '{type: shapes}' --method vlb --steps 4 -n 2"]
)";

/// One whole sweep in a folder of its own, made once for the suite.
class Sweeps : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    folder_->file("s.yaml", sweep);
    const Finished done = at({"sweep", "s.yaml", "-o", "whole"});
    ASSERT_EQ(done.code, 0) << done.err;
    table_ = done.out;
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  static size_t lines(const std::string& text) { return size_t(std::count(text.begin(), text.end(), '\n')); }
  inline static TempFolder* folder_ = nullptr;
  inline static std::string table_;
};

TEST_F(Sweeps, EndWithTheTable) {
  EXPECT_EQ(lines(table_), 7u) << table_;
  for (const char* word : {"lr=1.0e-2,seed=2", "train.optimizer.lr", "bits_per_dim", "validation_loss", "done"})
    EXPECT_NE(table_.find(word), std::string::npos) << word << "\n" << table_;
  EXPECT_TRUE(fs::exists(folder_->path() / "whole/lr=1.0e-3,seed=0/events.out.tfevents.brume"));
  EXPECT_TRUE(fs::exists(folder_->path() / "whole/lr=1.0e-3,seed=0/likelihood.json"));
}

TEST_F(Sweeps, StartedAgainDoNothingAndPrintTheSameTable) {
  const auto before = fs::last_write_time(folder_->path() / "whole/lr=1.0e-3,seed=0/model.safetensors");
  const Finished again = at({"sweep", "s.yaml", "-o", "whole", "--only", "missing"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.out, table_);
  EXPECT_NE(again.err.find("6 runs, 0 to do"), std::string::npos) << again.err;
  EXPECT_EQ(fs::last_write_time(folder_->path() / "whole/lr=1.0e-3,seed=0/model.safetensors"), before);
}

TEST_F(Sweeps, KilledInTheFourthRunGoOnThere) {
  // Kills the sweep, whose trainer dies with it, after the first checkpoint of the fourth run.
  const std::string script =
      "'" BRUME_BINARY_DIR
      "/brume' sweep s.yaml -o killed >/dev/null 2>&1 & id=$!\n"
      "while kill -0 $id 2>/dev/null && [ ! -e 'killed/lr=1.0e-2,seed=0/training.safetensors' ]; do sleep 0.01; done\n"
      "kill -9 $id; wait $id; echo $?";
  const Finished killed = run({"bash", "-c", script}, {folder_->path()});
  ASSERT_EQ(killed.out, "137\n") << killed.err;
  ASSERT_FALSE(fs::exists(folder_->path() / "killed/lr=1.0e-2,seed=1"));
  const auto first = fs::last_write_time(folder_->path() / "killed/lr=1.0e-3,seed=2/model.safetensors");
  const Finished again = at({"sweep", "s.yaml", "-o", "killed"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.out, table_);
  EXPECT_NE(again.err.find("6 runs, 3 to do"), std::string::npos) << again.err;
  EXPECT_EQ(fs::last_write_time(folder_->path() / "killed/lr=1.0e-3,seed=2/model.safetensors"), first);
  for (const auto& run : fs::directory_iterator(folder_->path() / "whole"))
    if (run.is_directory()) {
      EXPECT_EQ(read_text(run.path() / "model.safetensors"),
                read_text(folder_->path() / "killed" / run.path().filename() / "model.safetensors"))
          << run.path();
    }
}

TEST_F(Sweeps, AreCheckedBeforeTheFirstRun) {
  folder_->file("bad.yaml", std::string(sweep) + "  zip: {train.optimizer.lrr: [1, 2], train.bacth: [1, 2]}\n");
  const Finished done = at({"sweep", "bad.yaml", "-o", "bad"});
  EXPECT_EQ(done.code, 2);
  EXPECT_NE(done.err.find("unknown key 'lrr'; did you mean 'lr'?"), std::string::npos) << done.err;
  EXPECT_NE(done.err.find("unknown key 'bacth'; did you mean 'batch'?"), std::string::npos) << done.err;
  EXPECT_FALSE(fs::exists(folder_->path() / "bad"));
  EXPECT_EQ(at({"check", "bad.yaml"}).code, 2);
  EXPECT_EQ(at({"check", "s.yaml"}).code, 0);
  EXPECT_EQ(lines(at({"sweep", "s.yaml", "--dry-run"}).out), 6u);
}

TEST_F(Sweeps, RunSeveralAtOnceWithTheSameTable) {
  const Finished done = at({"sweep", "s.yaml", "-o", "jobs", "--jobs", "2"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.out, table_);
  EXPECT_TRUE(fs::exists(folder_->path() / "jobs/lr=1.0e-3,seed=0/log.txt"));
}

TEST_F(Sweeps, AreListedComparedAndReported) {
  const Finished csv = at({"runs", "whole", "--format", "csv", "--sort", "bits_per_dim", "--where", "lr=1.0e-3"});
  EXPECT_EQ(csv.code, 0) << csv.err;
  EXPECT_EQ(lines(csv.out), 4u) << csv.out;
  EXPECT_TRUE(csv.out.starts_with("run,state,train.seed,step,time,")) << csv.out;
  const auto json = nlohmann::json::parse(at({"runs", "whole", "--format", "json"}).out);
  EXPECT_EQ(json.size(), 6u);
  EXPECT_EQ(json[0]["configuration"]["train.steps"], "40");
  for (const char* figure : {"data_share", "memory_mb", "seconds", "images_per_second"})
    EXPECT_TRUE(json[0]["figures"].contains(figure)) << figure;
  const Finished diff = at({"runs", "diff", "whole/lr=1.0e-3,seed=0", "whole/lr=1.0e-2,seed=0"});
  EXPECT_NE(diff.out.find("train.optimizer.lr"), std::string::npos) << diff.out;
  EXPECT_EQ(diff.out.find("train.seed"), std::string::npos) << diff.out;
  EXPECT_EQ(at({"report", "whole", "-o", "report.html"}).code, 0);
  const std::string page = read_text(folder_->path() / "report.html");
  for (const char* part : {"<h2>Runs</h2>", "<h2>Curves</h2>", "<h2>Samples</h2>", "<h2>Evaluations</h2>", "data:image/png;base64,iVBOR",
                           "prefers-color-scheme: dark"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  for (const char* link : {"http:", "https:", "<script", "<link"}) EXPECT_EQ(page.find(link), std::string::npos) << link;
}

TEST_F(Sweeps, TrainSaysThatItLeavesTheSweepOut) {
  const Finished done = at({"train", "s.yaml", "--out", "alone", "--set", "train.steps=1"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.err.find("the section 'sweep' has no effect on train"), std::string::npos) << done.err;
}

}  // namespace
}  // namespace brume::test
