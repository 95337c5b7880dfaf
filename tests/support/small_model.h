#pragma once
// A small model of classes, trained once for all tests of a suite in a folder of their own: m/model.safetensors.
#include <gtest/gtest.h>

#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {

class SmallModel : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    folder_->file(
        "m.yaml",
        "model:\n  image: {height: 8, width: 8}\n  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}\n"
        "  conditioner: {type: class_label, classes: 5, dropout: 0.2}\n  parameterization: v\n"
        "train: {data: shapes, batch: 4, steps: 4, preview: {count: 0}}\nsample: {steps: 4}\ncompute: {threads: 1, precision: fp32}\n");
    const Finished done = at({"train", "m.yaml", "--out", "m"});
    ASSERT_EQ(done.code, 0) << done.err;
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  inline static TempFolder* folder_ = nullptr;  ///< of the suite that runs
};

}  // namespace brume::test
