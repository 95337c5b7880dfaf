// DreamBooth: class images that the model makes before it is trained, and previews next to those of the base.
#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "brume/core/loss_weights.h"
#include "brume/core/warnings.h"
#include "brume/files/mapped_file.h"
#include "brume/image/image.h"
#include "brume/model.h"
#include "brume/train/trainer.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;

class DreamBooth : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    write_clip_tokenizer(*folder_, "clip");
    fs::create_directories(folder_->path() / "photos");
    for (const char* name : {"a", "b", "c"}) write_png(folder_->file(fmt::format("photos/{}.png", name)), Image(8, 8, 3, 90));
    train(fmt::format(
              "model:\n  image: {{height: 8, width: 8}}\n"
              "  network: {{type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4, attention_resolutions: [8], heads: 2, "
              "zero_init: false, transformer: {{depth: [1]}}}}\n"
              "  conditioner: {{type: clip_text, tokenizer: {}, trainable: true, width: 16, depth: 1, heads: 2, mlp: 32, length: 10}}\n"
              "sample: {{steps: 2, guidance: [{{type: cfg, scale: 3}}]}}\n"
              "train:\n  data: {{type: shapes, caption: short}}\n{}",
              folder_->file("clip"), rest(2, "{count: 0}")),
          "base");
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::string rest(int64_t steps, const std::string& preview) {
    return fmt::format(
        "  optimizer: {{type: adamw, lr: 0.001}}\n  batch: 2\n  steps: {}\n  preview: {}\n  seed: 5\ncompute: {{threads: 1, precision: "
        "fp32}}\n",
        steps, preview);
  }
  static std::string booth(const std::string& prior, const std::string& more = "", const std::string& preview = "{count: 0}") {
    return fmt::format(
        "train:\n  from: {}\n  data: {{type: captioned_folder, path: {}, prompt: sks circle}}\n"
        "  prior_preservation: {{class_prompt: red circle, class_data: {}, {}}}\n{}{}",
        folder_->file("base/model.safetensors"), folder_->file("photos"), folder_->file("class"), prior, more, rest(2, preview));
  }
  static std::unique_ptr<Trainer> train(const std::string& yaml, const std::string& name, const std::string& resume = "") {
    auto trainer = Trainer::from_yaml(yaml, {.directory = folder_->file(name), .resume = resume, .overwrite = resume.empty()});
    trainer->run([] { return false; });
    return trainer;
  }
  static std::string said(const std::string& yaml) {
    try {
      train(yaml, "refused");
    } catch (const ConfigError& e) {
      return without(e.what(), *folder_);
    }
    return "";
  }
  static std::string class_image(int64_t i) { return folder_->file(fmt::format("class/class_{:05}.png", i)); }
  static std::string bytes(const std::string& file) { return std::string(MappedFile::open(file)->bytes()); }
  void SetUp() override { fs::remove_all(folder_->path() / "class"); }
  inline static TempFolder* folder_ = nullptr;
};

TEST_F(DreamBooth, TheModelMakesTheClassImagesBeforehand) {
  std::vector<std::string> warnings;
  const WarningScope scope([&](const std::string& text) { warnings.push_back(without(text, *folder_)); });
  const auto trainer = train(booth("class_images: 4"), "booth");
  EXPECT_NE(std::find(warnings.begin(), warnings.end(),
                      "train.prior_preservation: 'class' lacks 4 of 4 class images; they are made first, of 'red circle'"),
            warnings.end());
  const Tensor images =
      Model::open(folder_->file("base"), {.precision = "fp32"}).sample({.prompts = {"red circle"}, .count = 4, .seed = 5});
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(read_image(class_image(i)), to_image(images[i])) << i;

  const Dataset& data = trainer->data();
  ASSERT_EQ(data.size(), 6) << "as many readings of the class as of the subject";
  std::vector<float> pixels(size_t(3 * 8 * 8));
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(data.read(i, 0, pixels).caption, i < 3 ? "sks circle" : "red circle");
  EXPECT_EQ(loss_weights_of(data), nullptr);
}

TEST_F(DreamBooth, ClassImagesThatAreThereStay) {
  train(booth("class_images: 3"), "booth");
  const std::string kept = bytes(class_image(0)), lost = bytes(class_image(1));
  fs::remove(class_image(1));
  const auto time = fs::last_write_time(class_image(0));
  train(booth("class_images: 3"), "booth");
  EXPECT_EQ(bytes(class_image(1)), lost) << "it depends on the seed and its number alone";
  EXPECT_EQ(bytes(class_image(0)), kept);
  EXPECT_EQ(fs::last_write_time(class_image(0)), time);
  EXPECT_FALSE(fs::exists(class_image(3)));
}

TEST_F(DreamBooth, TheLossOfTheClassHasItsWeight) {
  const auto trainer = train(booth("class_images: 2, loss_weight: 0.25"), "booth");
  const LossWeights* weights = loss_weights_of(trainer->data());
  ASSERT_TRUE(weights);
  std::vector<float> w(64);
  weights->read_weights(0, 0, {3, 8, 8}, w);
  EXPECT_EQ(w, std::vector<float>(64, 1.0f));
  weights->read_weights(4, 0, {3, 8, 8}, w);
  EXPECT_EQ(w, std::vector<float>(64, 0.25f));
}

TEST_F(DreamBooth, SaysWhatItNeeds) {
  EXPECT_NE(said("train:\n  from: " + folder_->file("base/model.safetensors") +
                 "\n  data: shapes\n  prior_preservation: {class_data: x}\n" + rest(1, "{count: 0}"))
                .find("class_prompt: is missing, like 'photo of a cat'"),
            std::string::npos);
  train(booth("class_images: 2"), "booth");
  fs::remove(class_image(0));
  try {
    train(booth("class_images: 2"), "resumed", folder_->file("booth/training.safetensors"));
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("lacks 1 of 2 class images, which are made when a training begins; this one is resumed"),
              std::string::npos)
        << e.what();
  }
}

TEST_F(DreamBooth, PreviewsStandNextToThoseOfTheBase) {
  const std::string adapters = "  adapters: [{type: lora, rank: 2}]\n", preview = "count: 2, every: 1, steps: 2, prompts: [red circle]";
  train(booth("class_images: 1", adapters, "{" + preview + "}"), "alone");
  train(booth("class_images: 1", adapters, "{" + preview + ", base: true}"), "pairs");
  const Tensor images =
      Model::open(folder_->file("base"), {.precision = "fp32"}).sample({.prompts = {"red circle"}, .count = 2, .seed = 0});
  EXPECT_EQ(read_image(folder_->file("pairs/samples/base.png")), grid({to_image(images[0]), to_image(images[1])}, 2, 0));
  const Image alone = read_image(folder_->file("alone/samples/step_000002.png")),
              pairs = read_image(folder_->file("pairs/samples/step_000002.png"));
  EXPECT_EQ(pairs.width, alone.width) << "a pair instead of two images";
  EXPECT_GT(pairs.height, alone.height);
  EXPECT_FALSE(fs::exists(folder_->file("alone/samples/base.png")));
}

}  // namespace
}  // namespace brume::test
