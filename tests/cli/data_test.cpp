// What the program finds in data sets and in the images that it is given: before a training, in it, and in images that are arguments.
#include <gtest/gtest.h>

#include "brume/image/image.h"
#include "support/image_builders.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

class Data : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    folder_->file("m.yaml", yaml("{type: image_folder, path: images}"));
    folder_->file("skip.yaml", yaml("{type: image_folder, path: images, on_error: skip}"));
    folder_->file("fine.yaml", yaml("{type: image_folder, path: fine}"));
    for (const char* set : {"images", "fine"})
      for (int i = 0; i < 6; ++i) {
        const std::string name = std::string(set) + (i % 2 ? "/red/" : "/blue/") + std::to_string(i) + ".PNG";
        const std::string png = files::png_of(files::samples_of(Image(8, 8, 3, uint8_t(40 * i)), 8, false));
        folder_->file(name, std::string(set) == "images" && i >= 4 ? png.substr(0, png.size() - 14) : png);
      }
    folder_->file("images/.git/config", "");
    const Finished done = at({"train", "fine.yaml", "--out", "fine_run"});
    ASSERT_EQ(done.code, 0) << done.err;
    EXPECT_NE(done.err.find("train.data: 6 images, 2 classes\n"), std::string::npos) << done.err;
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string yaml(const std::string& data) {
    return "model:\n  image: {channels: 3, height: 8, width: 8}\n"
           "  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}\n"
           "train: {data: " +
           data + ", batch: 4, steps: 5, log_every: 5, preview: {count: 0}}\nsample: {steps: 2}\ncompute: {threads: 1, precision: fp32}\n";
  }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  static Image sampled(const std::vector<std::string>& more) {
    std::vector<std::string> words{"sample", "fine_run", "-n", "1", "--steps", "2", "-o", "out.png"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = at(words);
    EXPECT_EQ(done.code, 0) << done.err;
    return read_image(folder_->file("out.png"));
  }
  static TempFolder* folder_;
};
TempFolder* Data::folder_ = nullptr;

TEST_F(Data, IsCheckedBeforeTheFirstStep) {
  EXPECT_EQ(at({"check", "m.yaml"}).out, "m.yaml: no mistakes\n");
  const Finished stopped = at({"check", "--data", "m.yaml"});
  EXPECT_EQ(stopped.code, 2);
  EXPECT_NE(stopped.err.find("train.data: 6 images, 2 classes; left out: 1 hidden (.git)\n"), std::string::npos) << stopped.err;
  EXPECT_NE(stopped.err.find("error: train.data: images/blue/4.PNG: is a truncated PNG"), std::string::npos) << stopped.err;
  EXPECT_NE(stopped.err.find("train.data: images/red/5.PNG: is a truncated PNG"), std::string::npos) << stopped.err;
  const Finished skipped = at({"check", "--data", "skip.yaml"});
  EXPECT_EQ(skipped.code, 0) << skipped.err;
  EXPECT_NE(skipped.err.find("warning: 2 images of train.data are left out:\n"), std::string::npos) << skipped.err;
  EXPECT_EQ(skipped.out, "skip.yaml: no mistakes\n");
  EXPECT_EQ(at({"check", "fine.yaml", "--data"}).code, 0);
}

TEST_F(Data, ThatCannotBeReadIsSkippedCountedAndListed) {
  const Finished stopped = at({"train", "m.yaml", "--out", "stopped"});
  EXPECT_EQ(stopped.code, 2);
  const Finished done = at({"train", "skip.yaml", "--out", "skipped"});
  ASSERT_EQ(done.code, 0) << done.err;
  for (const char* name : {"blue/4.PNG", "red/5.PNG"})
    EXPECT_NE(done.err.find(std::string("warning: left out: images/") + name + ": is a truncated PNG"), std::string::npos) << done.err;
  EXPECT_NE(done.err.find("2 training images could not be read and were left out\n"), std::string::npos) << done.err;
  const std::string metrics = read_text(folder_->path() / "skipped/metrics.jsonl");
  EXPECT_NE(metrics.find("\"unread_images\":"), std::string::npos) << metrics;
}

TEST_F(Data, ThatIsEncodedIsCounted) {
  folder_->file("stage.yaml",
                "autoencoder:\n  image: {channels: 3, height: 8, width: 8}\n"
                "  network: {type: kl, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, latent_channels: 4}\n"
                "train: {data: {type: image_folder, path: images, on_error: skip}}\ncompute: {threads: 1}\n");
  ASSERT_EQ(at({"train", "stage.yaml", "--out", "stage", "--set", "train.data.path=fine", "--set", "train.steps=1", "--set",
                "train.batch=2", "--set", "train.preview.count=0"})
                .code,
            0);
  const Finished done = at({"encode", "stage/model.safetensors", "--data", "stage.yaml", "-o", "latents"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.err.find("data: 6 images, 2 classes; left out: 1 hidden (.git)\n"), std::string::npos) << done.err;
  EXPECT_NE(done.err.find("latents: 4 images as moments"), std::string::npos) << done.err;
  EXPECT_NE(read_text(folder_->path() / "latents/index.json").find("\"count\": 4"), std::string::npos);
}

TEST_F(Data, ImagesAreUprightAsArguments) {
  Image shown(8, 8, 3);
  for (size_t i = 0; i < shown.pixels.size(); ++i) shown.pixels[i] = (i % 3 + i / 24 + i % 24 / 5) % 2 ? 200 : 20;
  folder_->file("plain.png", files::png_of(files::samples_of(shown, 8, false)));
  const Image plain = sampled({"--image", "plain.png"});
  for (const int orientation : {2, 5, 6, 8}) {
    const files::Samples s = files::samples_of(files::stored_for(shown, orientation), 8, false);
    folder_->file("t.png", files::png_of(s, files::png_chunk("eXIf", files::exif(orientation, true))));
    folder_->file("t.tif", files::tiff_of(s, orientation, true));
    folder_->file("t.webp", files::webp_of(s, orientation));
    for (const char* name : {"t.png", "t.tif", "t.webp"}) EXPECT_EQ(sampled({"--image", name}), plain) << name << " " << orientation;
  }
}

TEST_F(Data, MasksArePaint) {
  Image image(8, 8, 3, 90), mask(8, 8, 1, 0), white(8, 8, 1, 255), black(8, 8, 1, 0), red(8, 8, 3, 0);
  for (int64_t y = 0; y < 8; ++y) std::fill_n(mask.row(y) + 4, 4, uint8_t{255});
  for (size_t i = 0; i < red.pixels.size(); i += 3) red.pixels[i] = 255;
  write_png(folder_->file("image.png"), image);
  write_png(folder_->file("mask.png"), mask);
  const auto right_half = [](int64_t, int64_t x) { return x >= 4 ? 255 : 0; };
  for (const auto& [name, paint] : {std::pair("white.png", &white), {"black.png", &black}, {"red.png", &red}})
    folder_->file(name, files::png_of(files::samples_of(*paint, 8, true, right_half)));
  const Image wanted = sampled({"--image", "image.png", "--mask", "mask.png"});
  EXPECT_EQ(sampled({"--image", "image.png", "--mask", "white.png"}), wanted);
  const auto said = [](const char* name) { return at({"sample", "fine_run", "-n", "1", "--image", "image.png", "--mask", name}).err; };
  const std::string advice = "; paint white what is to be generated, on black or on transparency\n";
  EXPECT_EQ(said("black.png"),
            "error: --mask: black.png is partly transparent, and its paint is black, so nothing would be generated" + advice);
  EXPECT_EQ(said("red.png"), "error: --mask: red.png is partly transparent, and its paint has colours" + advice);
}

}  // namespace
}  // namespace brume::test
