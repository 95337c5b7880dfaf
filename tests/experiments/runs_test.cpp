// Records of run directories, their index, and what is asked of them.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <map>

#include "brume/experiments/packed_record.h"
#include "brume/experiments/run_index.h"
#include "brume/experiments/run_query.h"
#include "brume/train/metrics_file.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/safetensors.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

/// Writes a run of 10 steps whose checkpoint is at `step`; with -1 it has none.
void write_run(const TempFolder& folder, const std::string& name, double lr, int64_t step, double fid) {
  Value config = Value::map();
  config.set("train", Value::map());
  config.find("train")->set("steps", Value::text("10"));
  config.find("train")->set("lr", Value::text(std::to_string(lr)));
  folder.file(name + "/config.yaml", "train:\n  steps: 10\n  lr: " + std::to_string(lr) + "\n");
  folder.file(
      name + "/metrics.jsonl",
      "{\"step\":5,\"loss\":0.25,\"grad_norm\":1.0,\"seconds\":2.0}\n{\"step\":10,\"loss\":0.5,\"grad_norm\":1.0,\"seconds\":4.0}\n");
  folder.file(name + "/evaluate.json",
              "{\"steps\": 20, \"sets\": [{\"name\": \"real\", \"frechet_distance\": 0}, {\"name\": \"cfg 2\", \"figures\": {\"fid\": " +
                  std::to_string(fid) + "}}]}");
  if (step >= 0) write_safetensors(folder.file(name + "/training.safetensors"), {}, ModelMetadata::of_training(step, config).entries());
}

std::vector<std::string> names(const std::vector<RunRecord>& runs) {
  std::vector<std::string> all;
  for (const RunRecord& run : runs) all.push_back(run.name);
  return all;
}
using Names = std::vector<std::string>;

TEST(MetricsFile, SkipsLinesWhoseStepIsNoInteger) {
  const TempFolder folder;
  const std::string file =
      folder.file("metrics.jsonl",
                  "{\"step\":1,\"loss\":2,\"grad_norm\":null}\n{\"loss\":1}\n{\"step\":\"2\",\"loss\":3}\n{\"step\":1.5}\n[1]\n"
                  "{\"step\":3,\"test_loss\":4}\n{\"step\":4,\"lo");
  const std::vector<MetricsLine> lines = read_metrics(file);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].figures, (Metrics{{"loss", 2}}));
  EXPECT_FALSE(lines[0].test);
  EXPECT_TRUE(lines[1].test);
  EXPECT_TRUE(has_test(file, 3));
  EXPECT_FALSE(has_test(file, 1));
  trim_metrics(file, 2);
  EXPECT_EQ(read_metrics(file).size(), 1u);
}

TEST(Runs, ReadsFiguresConfigurationAndState) {
  const TempFolder folder;
  write_run(folder, "a", 0.1, 10, 7.5);
  write_run(folder, "deep/b", 0.2, 5, 3.5);
  const std::vector<RunRecord> runs = list_runs(folder.path());
  ASSERT_EQ(names(runs), (Names{"a", "deep/b"}));
  EXPECT_EQ(runs[0].state, RunState::done);
  EXPECT_EQ(runs[1].state, RunState::stopped);
  EXPECT_EQ(runs[0].figures.at("loss").last, 0.5);
  EXPECT_EQ(runs[0].figures.at("loss").best, 0.25);
  EXPECT_EQ(runs[0].figures.at("fid").last, 7.5);
  EXPECT_FALSE(runs[0].figures.contains("frechet_distance"));  // of the real images
  ASSERT_EQ(runs[0].evaluations.size(), 1u);
  EXPECT_EQ(runs[0].evaluations[0].steps, 20);
  EXPECT_EQ(runs[0].evaluations[0].scale, 2.0);
  EXPECT_EQ(differing_keys(runs), (Names{"train.lr"}));
}

TEST(Runs, ShowsDirectoriesThatAreHalfWrittenOrOfAnotherVersion) {
  const TempFolder folder;
  folder.file("empty_config/config.yaml", "");
  folder.file("broken/config.yaml", "train: [");
  folder.file("no_config/metrics.jsonl", "{\"step\":3,\"loss\":1}\n{\"st");
  folder.file("cut/config.yaml", "train: {steps: 10}\n");
  folder.file("cut/training.safetensors", "abc");
  folder.file("binary/config.yaml", std::string("\xff\xfe\0x", 4));
  folder.file("binary/a.json", "{\"sets\": [3, {\"figures\": 4}]}");
  Value config = Value::map();
  auto newer = ModelMetadata::of_training(3, config).entries();
  newer["brume.format"] = "99";
  folder.file("newer/config.yaml", "train: {steps: 10}\n");
  write_safetensors(folder.file("newer/training.safetensors"), {}, newer);
  const std::vector<RunRecord> runs = list_runs(folder.path());
  std::map<std::string, RunState> states;
  for (const RunRecord& run : runs) {
    states[run.name] = run.state;
    EXPECT_FALSE(run.note.empty()) << run.name;
  }
  EXPECT_EQ(states, (std::map<std::string, RunState>{{"empty_config", RunState::other_version},
                                                     {"broken", RunState::half_written},
                                                     {"no_config", RunState::half_written},
                                                     {"cut", RunState::half_written},
                                                     {"binary", RunState::half_written},
                                                     {"newer", RunState::other_version}}));
}

TEST(Runs, TheIndexFollowsTheRunsAndCanBeMadeAgain) {
  const TempFolder folder;
  const auto record = [&] { return record_text(list_runs(folder.path()).front()); };
  write_run(folder, "a", 0.1, 10, 7.5);
  write_run(folder, "b", 0.1, 10, 8.5);
  const std::string first = record();
  ASSERT_TRUE(fs::exists(folder.path() / run_index_name));
  EXPECT_EQ(record(), first);
  folder.file("a/evaluate.json", "{\"figures\": {\"fid\": 1.25}}");
  EXPECT_EQ(list_runs(folder.path()).front().figures.at("fid").last, 1.25);
  fs::remove_all(folder.path() / "a");
  EXPECT_EQ(names(list_runs(folder.path())), (Names{"b"}));
  const std::string b = record();
  std::ofstream(folder.path() / run_index_name, std::ios::trunc) << "this is no database, and long enough to be taken for one by its size";
  EXPECT_EQ(record(), b);
  EXPECT_EQ(record(), b);
  fs::remove(folder.path() / run_index_name);
  EXPECT_EQ(record(), b);
}

TEST(Runs, UnchangedOnesComeFromTheIndex) {
  const TempFolder folder;
  write_run(folder, "a", 0.1, 10, 7.5);
  write_run(folder, "b", 0.2, 5, 30);
  folder.file("b/config.yaml", "train: [");
  const auto all = [&] {
    std::string text;
    for (const RunRecord& run : list_runs(folder.path())) text += record_text(run) + "\n";
    return text;
  };
  const std::string before = all();
  const fs::path file = folder.path() / "a/evaluate.json";
  const auto time = fs::last_write_time(file);
  std::fstream(file, std::ios::in | std::ios::out) << "[]";  // no JSON any more, of the same size
  fs::last_write_time(file, time);
  EXPECT_EQ(all(), before);
  fs::last_write_time(file, time + std::chrono::seconds(1));
  EXPECT_NE(all(), before);
}

TEST(PackedRecord, IsReadBackAndCutOnesAreRefused) {
  RunRecord run{"a/b"};
  run.state = RunState::stopped, run.note = std::string("a\0b\xff", 4), run.step = 3, run.steps = int64_t(1) << 40;
  run.configuration = {{"", "x"}, {"train.lr", "0.1"}};
  run.figures = {{"fid", {1.5, -0.0}}};
  run.evaluations = {{"evaluate.json", "cfg 2", 50, 2.0, "ddim", {{"fid", 1}}}, {"other.json", "", 0, {}, "", {}}};
  const std::string bytes = packed_record(run);
  const RunRecord back = unpacked_record(bytes);
  EXPECT_EQ(record_text(back), record_text(run));
  EXPECT_EQ(back.note, run.note);
  EXPECT_EQ(packed_record(back), bytes);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(unpacked_record(std::string_view(bytes).substr(0, size)), ConfigError) << size;
  EXPECT_THROW(unpacked_record(bytes + "x"), ConfigError);
}

TEST(Runs, AreFilteredAndSorted) {
  const TempFolder folder;
  write_run(folder, "a", 0.1, 10, 7.5);
  write_run(folder, "b", 0.2, 5, 30);
  write_run(folder, "c", 0.3, 10, 4);
  const std::vector<RunRecord> runs = list_runs(folder.path());
  EXPECT_EQ(names(filtered(runs, {"fid<10"})), (Names{"a", "c"}));
  EXPECT_EQ(names(filtered(runs, {"fid<10", "lr != 0.1"})), (Names{"c"}));
  EXPECT_EQ(names(filtered(runs, {"state=done", "best.loss<=0.25"})), (Names{"a", "c"}));
  EXPECT_EQ(names(filtered(runs, {"train.lr>=0.2"})), (Names{"b", "c"}));
  std::vector<RunRecord> sorted = runs;
  sort_by(sorted, "fid", false);
  EXPECT_EQ(names(sorted), (Names{"c", "a", "b"}));
  sort_by(sorted, "fid", true);
  EXPECT_EQ(names(sorted), (Names{"b", "a", "c"}));
  EXPECT_EQ(error_of([&] { filtered(runs, {"fidd<10"}); }), "where: no run has 'fidd'; did you mean 'fid'?");
  EXPECT_EQ(error_of([&] { filtered(runs, {"fid"}); }), "where: 'fid' is no condition such as fid<10 or model.parameterization=v");
  EXPECT_EQ(error_of([&] { filtered(runs, {"fid<x"}); }), "where: 'fid<x' compares with <, and 'x' is no number");
  EXPECT_NE(error_of([&] { list_runs(folder.path() / "none"); }).find("no such directory"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
