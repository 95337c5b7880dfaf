// Models, trainings and images made when keys had former names are used as those of today.
#include "brume/image/image.h"
#include "brume/weights/safetensors.h"
#include "support/process.h"
#include "support/tempdir.h"

#include <gtest/gtest.h>

#include <utility>

namespace brume::test {
namespace {

namespace fs = std::filesystem;

/// A file's text with the former names of what it names today.
void give_former_names(const fs::path& path) {
  const std::pair<std::string, std::string> former[] = {
      {"type: composite", "type: several"}, {"timestep_rounding: nearest", "told_time: nearest"}, {"decoder_heads: 2", "heads_up: 2"}};
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
  {
    const SafetensorsFile file(path.string());
    for (const NamedTensor& t : file.tensors()) tensors.push_back({t.name, t.tensor.clone()});
    metadata = file.metadata();
  }
  size_t replaced = 0;
  for (auto& [key, text] : metadata)
    for (const auto& [name, was] : former)
      if (const size_t at = text.find(name); at != std::string::npos) text.replace(at, name.size(), was), ++replaced;
  ASSERT_GE(replaced, 3u) << path;
  write_safetensors(path.string(), tensors, metadata);
}

class FormerNames : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    folder_->file("m.yaml",
                  "model:\n  image: {height: 8, width: 8}\n"
                  "  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, decoder_heads: 2}\n"
                  "  conditioner: {type: composite, of: [{type: class_label, classes: 5, dropout: 0.2}]}\n"
                  "train: {data: shapes, batch: 4, steps: 4, preview: {count: 0}}\n"
                  "sample: {steps: 4, timestep_rounding: nearest}\ncompute: {threads: 1, precision: fp32}\n");
    for (const char* run : {"now", "old"}) ASSERT_EQ(at({"train", "m.yaml", "--out", run}).code, 0);
    for (const char* file : {"model.safetensors", "training.safetensors"}) give_former_names(folder_->path() / "old" / file);
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  static void expect_same_weights(const fs::path& a, const fs::path& b) {
    const SafetensorsFile one((folder_->path() / a).string()), other((folder_->path() / b).string());
    ASSERT_EQ(one.entries().size(), other.entries().size());
    for (const SafetensorsEntry& e : one.entries()) EXPECT_TRUE(one.tensor(e).equal(other.tensor(e.name))) << e.name;
  }
  static Image image(const std::string& name) { return read_image((folder_->path() / name).string()); }
  inline static TempFolder* folder_ = nullptr;
};

TEST_F(FormerNames, AModelIsSampledWithoutWarnings) {
  for (const char* run : {"now", "old"}) {
    const Finished done = at({"sample", run, "-n", "2", "-o", std::string(run) + ".png"});
    ASSERT_EQ(done.code, 0) << done.err;
    EXPECT_EQ(done.err.find("is now"), std::string::npos) << done.err;
  }
  EXPECT_EQ(image("old.png"), image("now.png"));
}

TEST_F(FormerNames, ATrainingGoesOn) {
  const Finished done = at({"train", "--resume", "old", "--set", "train.steps=6"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.err.find("is now"), std::string::npos) << done.err;
  ASSERT_EQ(at({"train", "--resume", "now", "--set", "train.steps=6"}).code, 0);
  expect_same_weights("old/model.safetensors", "now/model.safetensors");
  EXPECT_EQ(SafetensorsFile((folder_->path() / "old/model.safetensors").string()).metadata().at("brume.model").find("several"),
            std::string::npos)
      << "what is written has the names of today";
}

TEST_F(FormerNames, TheCommandLineAndItsImagesWarnOnce) {
  const Finished done = at({"sample", "now", "-n", "1", "--set", "sample.told_time=below", "--set", "sample.steps=3", "-o", "below.png"});
  ASSERT_EQ(done.code, 0) << done.err;
  const std::string warning = "warning: --set sample.told_time=below: sample.told_time is now timestep_rounding\n";
  const size_t first = done.err.find(warning);
  ASSERT_NE(first, std::string::npos) << done.err;
  EXPECT_EQ(done.err.find(warning, first + 1), std::string::npos) << done.err;
  const Finished again = at({"sample", "--from", "below.png", "-o", "again.png"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.err.find(warning), std::string::npos) << again.err;
  EXPECT_EQ(image("again.png"), image("below.png"));
  ASSERT_EQ(at({"sample", "now", "-n", "1", "--set", "sample.timestep_rounding=below", "--set", "sample.steps=3", "-o", "same.png"}).code,
            0);
  EXPECT_EQ(image("same.png"), image("below.png"));
}

TEST_F(FormerNames, ChecksWarnAndBothNamesAreAMistake) {
  folder_->file("old.yaml", "model: {network: unet}\nsample:\n  told_time: below\n");
  const Finished done = at({"check", "old.yaml"});
  EXPECT_EQ(done.code, 0);
  EXPECT_EQ(done.out, "old.yaml: no mistakes\n");
  EXPECT_EQ(done.err, "warning: old.yaml:3:3: sample.told_time is now timestep_rounding\n");
  folder_->file("both.yaml", "model: {network: unet}\nsample:\n  told_time: below\n  timestep_rounding: below\n");
  const Finished both = at({"check", "both.yaml"});
  EXPECT_EQ(both.code, 2);
  EXPECT_EQ(both.err, "error: both.yaml:3:3: sample.told_time is now timestep_rounding, which is given as well; leave one out\n");
}

TEST_F(FormerNames, EachKeyWarnsOnce) {
  folder_->file("keys.yaml",
                "model:\n  network: {type: unet, channels: 16, multipliers: [1, 2], groups: 4, heads_up: 2}\n"
                "  conditioner: {type: several, of: [{type: class_label, classes: 5}]}\n  noise: {type: vp, told_scale: 500}\n"
                "sample:\n  told_time: below\n  spacing: {type: linspace, between: sigma}\n");
  const Finished done = at({"check", "keys.yaml"});
  EXPECT_EQ(done.out, "keys.yaml: no mistakes\n");
  EXPECT_EQ(done.err,
            "warning: keys.yaml:2:71: model.network.heads_up is now decoder_heads\n"
            "warning: keys.yaml:3:23: model.conditioner: conditioner 'several' is now 'composite'\n"
            "warning: keys.yaml:4:21: model.noise.told_scale is now timestep_scale\n"
            "warning: keys.yaml:7:29: sample.spacing.between is now interpolation\n"
            "warning: keys.yaml:7:38: sample.spacing: interpolation has no effect, as round is true\n"
            "warning: keys.yaml:6:3: sample.told_time is now timestep_rounding\n");
}

TEST_F(FormerNames, Kinds) { EXPECT_EQ(at({"list", "perceptual"}).out, at({"list", "perceptual_loss"}).out); }

}  // namespace
}  // namespace brume::test
