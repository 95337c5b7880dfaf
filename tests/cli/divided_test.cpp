// brume evaluate, likelihood and statistics in jobs: what several processes find together is what one finds.
#include <gtest/gtest.h>

#include "support/model_file.h"
#include "support/process.h"

namespace brume::test {
namespace {

class Divided : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    classifier_file(*folder_, 1);
    model_file(*folder_,
               "{image: {channels: 1, height: 16, width: 16}, conditioner: {type: class_label, classes: 5, dropout: 0.1}, "
               "network: {type: unet, zero_init: false, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}}");
  }
  static void TearDownTestSuite() { delete folder_; }
  static Finished brume(std::vector<std::string> words) { return run_brume(std::move(words), {.folder = folder_->path()}); }
  static std::string bytes(const std::string& name) { return read_text(folder_->path() / name); }

  /// Runs a command that writes one.json, with `option` before the name, and the same in two processes, which write two.json.
  static void expect_the_same(std::vector<std::string> words, const std::string& option, const std::string& ending) {
    words.insert(words.end(), {"--threads", "1", option, "one" + ending});
    const Finished one = brume(words);
    ASSERT_EQ(one.code, 0) << one.err;
    words.back() = "two" + ending;
    words.insert(words.begin(), {"launch", "-n", "2", "--"});
    const Finished two = brume(words);
    ASSERT_EQ(two.code, 0) << two.err;
    ASSERT_FALSE(bytes("one" + ending).empty());
    EXPECT_TRUE(bytes("two" + ending) == bytes("one" + ending)) << words[4];
    EXPECT_EQ(two.out.find("[1]"), std::string::npos) << two.out;  // rank 0 reports
  }
  static TempFolder* folder_;
};
TempFolder* Divided::folder_ = nullptr;

TEST_F(Divided, SamplesHaveTheScoresOfOneProcess) {
  expect_the_same({"evaluate", "model.safetensors", "--features", "classifier:classifier.safetensors", "--metric",
                   "fid,kid,inception_score,precision_recall", "--real", "{type: shapes}", "--limit", "21", "-n", "11", "--batch", "4",
                   "--steps", "1,2"},
                  "--json", ".json");
}

TEST_F(Divided, SamplesOfClassesHaveTheFiguresOfOneProcess) {
  expect_the_same({"evaluate", "model.safetensors", "--classifier", "classifier.safetensors", "--real", "{type: shapes}", "--limit", "21",
                   "-n", "9", "--steps", "1"},
                  "--json", ".json");
}

TEST_F(Divided, LikelihoodsAreThoseOfOneProcess) {
  for (const char* method : {"vlb", "ode"})
    expect_the_same({"likelihood", "model.safetensors", "--data", "{type: shapes}", "-n", "3", "--method", method, "--steps",
                     std::string(method) == "vlb" ? "3" : "0", "--rtol", "0.1", "--atol", "0.1"},
                    "--json", ".json");
}

TEST_F(Divided, StatisticsAreThoseOfOneProcess) {
  expect_the_same(
      {"statistics", "{type: shapes}", "--shape", "1x16x16", "--features", "classifier:classifier.safetensors", "--limit", "21"}, "-o",
      ".npz");
}

TEST_F(Divided, WhatCannotBeDividedIsRefused) {
  const Finished few = brume({"launch", "-n", "2", "--", "likelihood", "model.safetensors", "--data", "{type: shapes}", "-n", "1"});
  EXPECT_EQ(few.code, 2);
  EXPECT_NE(few.err.find("error: 1 image cannot be divided among 2 processes\n"), std::string::npos) << few.err;
  const Finished order =
      brume({"launch", "-n", "2", "--", "evaluate", "model.safetensors", "--features", "classifier:classifier.safetensors", "--metric",
             "fid", "--real", "{type: shapes}", "--noise-order", "batch"});
  EXPECT_EQ(order.code, 2);
  EXPECT_NE(order.err.find("error: 2 processes: noise order 'batch' draws the noise of all images at once"), std::string::npos)
      << order.err;
}

}  // namespace
}  // namespace brume::test
