// The whole way by the program: a first stage, a tokenizer, a model in its latent space that is asked in words, and models that make images
// out of others.
#include <gtest/gtest.h>

#include "brume/image/image.h"
#include "brume/text/sentencepiece.h"
#include "brume/weights/weights_file.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

constexpr const char* data = "{type: shapes, objects: [1, 2], caption: short, backgrounds: [dark]}";

std::string model_yaml(const std::string& conditioner, const std::string& more = "") {
  return "model:\n  image: {height: 16, width: 16}\n  " + more +
         "\n  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: [8], zero_init: false, "
         "transformer: "
         "{depth: "
         "[1]}}\n  conditioner: " +
         conditioner + "\n  noise: cosine\n  parameterization: v\ntrain:\n  data: " + data +
         "\n  batch: 4\n  steps: 4\n  preview: {count: 4, steps: 2}\nsample: {steps: 3}\ncompute: {threads: 1}\n";
}

class LatentText : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!text::sentencepiece_missing().empty()) return;
    folder_ = new TempFolder;
    folder_->file("stage.yaml",
                  std::string("autoencoder:\n  image: {height: 16, width: 16}\n  network: {type: kl, channels: 8, multipliers: "
                              "[1, 2], blocks: 1, groups: 4, latent_channels: 4}\ntrain: {data: ") +
                      data + ", batch: 4, steps: 4, preview: {count: 2}}\ncompute: {threads: 1}\n");
    const std::string stage = "autoencoder: {type: checkpoint, path: stage/model.safetensors}";
    folder_->file("words.yaml", model_yaml("{type: text, tokenizer: words.model, width: 16, depth: 1, length: 8}", stage));
    run({"train", "stage.yaml", "--out", "stage"});
    run({"tokenizer", "train", "words.yaml", "--type", "bpe", "--size", "90", "-n", "500", "-o", "words.model"});
    run({"train", "words.yaml", "--out", "words"});
    for (const char* gone : {"stage", "words.model"}) fs::rename(folder_->path() / gone, folder_->path() / (std::string(gone) + ".away"));
  }
  static void TearDownTestSuite() { delete folder_; }
  void SetUp() override {
    if (!folder_) GTEST_SKIP() << text::sentencepiece_missing();
  }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  static Finished run(std::vector<std::string> words) {
    Finished done = at(std::move(words));
    EXPECT_EQ(done.code, 0) << done.err;
    return done;
  }
  static Finished sample(std::vector<std::string> more) {
    std::vector<std::string> words{"sample", "words/model.safetensors", "--precision", "fp32"};
    words.insert(words.end(), more.begin(), more.end());
    return at(words);
  }
  static std::string said(std::vector<std::string> more) {
    const Finished done = sample(std::move(more));
    EXPECT_EQ(done.code, 2);
    return done.err;
  }
  static Image image(const std::string& name) { return read_image((folder_->path() / name).string()); }
  static TempFolder* folder_;
};
TempFolder* LatentText::folder_ = nullptr;

TEST_F(LatentText, SamplingNeedsOneFile) {
  const Finished done = sample({"--prompt", "a small red circle", "--prompt", "a large blue star", "-n", "4", "--cfg", "4", "-o", "four"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(image("four/00003.png").height, 16);
  EXPECT_NE(image("four/00000.png"), image("four/00001.png"));
  ASSERT_EQ(at({"sample", "--from", "four/00002.png", "-o", "again.png"}).code, 0);
  EXPECT_EQ(image("again.png"), image("four/00002.png"));
  EXPECT_NE(read_png_text((folder_->path() / "four/00002.png").string()).at("brume").find("--prompt 'a small red circle'"),
            std::string::npos);
}

TEST_F(LatentText, WordsSteer) {
  const auto made = [](std::vector<std::string> more, const std::string& name) {
    more.insert(more.end(), {"--cfg", "6", "-o", name});
    EXPECT_EQ(sample(more).code, 0);
    return image(name);
  };
  const auto plain = made({"--prompt", "a small red circle"}, "a.png");
  EXPECT_NE(made({"--prompt", "a large green square"}, "b.png"), plain);
  EXPECT_NE(made({"--prompt", "a small red circle", "--negative", "a star"}, "c.png"), plain);
  EXPECT_EQ(made({"--prompt", "a small red circle", "--negative", ""}, "d.png"), plain) << "the empty caption is the null condition";
  folder_->file("prompts.txt",
                "\xEF\xBB\xBF"
                "a small red circle\r\n\n  \na large green square\n\n");
  ASSERT_EQ(sample({"--prompts", "prompts.txt", "--cfg", "6", "-o", "two"}).code, 0);
  EXPECT_EQ(image("two/00000.png"), plain);
  EXPECT_TRUE(fs::exists(folder_->path() / "two/00001.png"));
  EXPECT_FALSE(fs::exists(folder_->path() / "two/00002.png")) << "blank lines are no prompts";
}

TEST_F(LatentText, OtherSizesAndTiles) {
  ASSERT_EQ(sample({"--prompt", "a star", "--height", "24", "--width", "32", "-o", "wide.png"}).code, 0);
  EXPECT_EQ(image("wide.png").width, 32);
  EXPECT_EQ(said({"--prompt", "a star", "--height", "23"}),
            "error: sides of images are multiples of 2, and 23 by 16 are not; the nearest is 24 by 16\n");
  ASSERT_EQ(sample({"--prompt", "a star", "--height", "32", "--width", "32", "--tile", "16", "-o", "tiled.png"}).code, 0);
}

TEST_F(LatentText, FramesAreDecodedBatchByBatch) {
  for (const char* batch : {"1", "3"})
    ASSERT_EQ(sample({"--prompt", "a star", "-n", "3", "--batch", batch, "--frames", std::string("frames") + batch, "--strip",
                      std::string("strip") + batch + ".png", "-o", "framed.png"})
                  .code,
              0);
  EXPECT_EQ(image("strip1.png"), image("strip3.png"));
  EXPECT_EQ(image("frames1/step_0000.png"), image("frames3/step_0000.png"));
  EXPECT_NE(image("frames1/step_0000.png"), image("frames1/step_0001.png"));
}

TEST_F(LatentText, Mistakes) {
  EXPECT_EQ(said({}), "error: this model is asked in words: --prompt is missing; '' is the empty caption\n");
  EXPECT_EQ(said({"--prompt", "a", "--prompt", "b", "--prompt", "c", "--negative", "x", "--negative", "y"}),
            "error: --negative: 2 for 3 prompts; one for all, or one per prompt\n");
  const Finished cut = sample({"--prompt", "a small red circle left of a large blue square above a star", "-o", "cut.png"});
  EXPECT_EQ(cut.code, 0) << cut.err;
  EXPECT_NE(cut.err.find("warning: "), std::string::npos) << cut.err;
  EXPECT_NE(cut.err.find("square"), std::string::npos) << "the warning names what was cut: " << cut.err;
}

TEST_F(LatentText, ImagesOutOfOthers) {
  folder_->file("super.yaml", model_yaml("{type: concat_image, factor: 2}"));
  folder_->file("fill.yaml", model_yaml("{type: concat_image, image: masked}"));
  for (const char* name : {"super", "fill"}) run({"train", std::string(name) + ".yaml", "--out", name, "--set", "train.preview.count=2"});
  write_png((folder_->path() / "small.png").string(), Image(8, 8, 3, 200));
  write_png((folder_->path() / "large.png").string(), Image(16, 16, 3, 200));
  write_png((folder_->path() / "mask.png").string(), Image(16, 16, 1, 255));
  const auto made = [](const std::string& model, std::vector<std::string> more) {
    std::vector<std::string> words{"sample", model + "/model.safetensors", "-n", "1", "-o", "made.png", "--precision", "fp32"};
    words.insert(words.end(), more.begin(), more.end());
    return at(words);
  };
  ASSERT_EQ(made("super", {"--image", "small.png"}).code, 0);
  const Image small = image("made.png");
  ASSERT_EQ(made("super", {"--image", "large.png"}).code, 0);
  EXPECT_EQ(image("made.png"), small) << "a flat image, given large or small";
  ASSERT_EQ(made("fill", {"--image", "large.png", "--mask", "mask.png"}).code, 0);
  EXPECT_EQ(made("super", {"--image", "large.png", "--mask", "mask.png"}).err,
            "error: this model makes images out of others, whole ones: it takes no mask\n");
  EXPECT_EQ(made("super", {}).err, "error: this model makes images out of others, and none is given\n");
  EXPECT_EQ(made("fill", {"--image", "small.png", "--mask", "mask.png"}).err,
            "error: --image: small.png is 8 pixels high and 8 wide, and the model makes 16 by 16\n");
  EXPECT_EQ(made("fill", {"--image", "large.png"}).err,
            "error: this model fills in what a mask leaves open (conditioner: concat_image), and none is given\n");
}

}  // namespace
}  // namespace brume::test
