// brume sample: an image records how it was made and is made again from that; runs in pieces; other sizes; runs without prompts.
#include "brume/image/image.h"
#include "support/small_model.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

class Replay : public SmallModel {
 protected:
  static Finished sample(std::vector<std::string> more) {
    std::vector<std::string> words{"sample", "m/model.safetensors", "--precision", "fp32"};
    words.insert(words.end(), more.begin(), more.end());
    return at(words);
  }
  static Image image(const std::string& name) { return read_image((folder_->path() / name).string()); }
  static std::string said(std::vector<std::string> words) {
    const Finished done = at(std::move(words));
    EXPECT_EQ(done.code, 2);
    return without(done.err, *folder_);
  }
};

TEST_F(Replay, OneImageOfMany) {
  ASSERT_EQ(sample({"-n", "6", "--cfg", "3", "--seed", "7", "--steps", "3", "--set", "sample.guidance=[clip]", "-o", "all"}).code, 0);
  const Finished done = at({"sample", "--from", "all/00004.png", "-o", "again.png"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(image("again.png"), image("all/00004.png"));
  ASSERT_EQ(at({"sample", "--from", "all/00004.png", "-o", "other.png", "--seed", "8"}).code, 0);
  EXPECT_NE(image("other.png"), image("all/00004.png")) << "an option given besides replaces the image's own";
  ASSERT_EQ(at({"sample", "-o", "here.png", "--from=again.png", "m/model.safetensors"}).code, 0);
  EXPECT_EQ(image("here.png"), image("again.png")) << "what is made again can be made again";
}

TEST_F(Replay, AGrid) {
  ASSERT_EQ(sample({"--classes", "star,circle", "-n", "3", "--sampler", "{type: ddim, eta: 1}", "-o", "grid.png"}).code, 0);
  ASSERT_EQ(at({"sample", "--from", "grid.png", "-o", "grid2.png"}).code, 0);
  EXPECT_EQ(image("grid.png"), image("grid2.png"));
}

TEST_F(Replay, Pieces) {
  ASSERT_EQ(sample({"-n", "5", "-o", "whole"}).code, 0);
  ASSERT_EQ(sample({"-n", "2", "--first", "3", "-o", "piece"}).code, 0);
  for (const char* name : {"00003.png", "00004.png"}) EXPECT_EQ(image(std::string("whole/") + name), image(std::string("piece/") + name));
}

TEST_F(Replay, OtherSizes) {
  ASSERT_EQ(sample({"-n", "1", "--height", "12", "--width", "20", "-o", "size.png"}).code, 0);
  EXPECT_EQ(image("size.png").height, 12);
  EXPECT_EQ(image("size.png").width, 20);
  ASSERT_EQ(at({"sample", "--from", "size.png", "-o", "size2.png"}).code, 0);
  EXPECT_EQ(image("size.png"), image("size2.png"));
}

// An image may come from anywhere: it does not load code, nor name a file to write.
TEST_F(Replay, WhatAnImageMayNotTell) {
  const auto told = [](const std::string& arguments) {
    write_png((folder_->path() / "from.png").string(), Image(4, 4, 3), {{"brume.arguments", arguments}});
    return said({"sample", "--from", "from.png", "-o", "made.png"});
  };
  for (const char* option : {"--plugin", "--out", "-o", "--trajectory", "--frames", "--strip", "--from", "--device", "--grid"}) {
    const std::string text = told(std::string(R"(["m/model.safetensors", ")") + option + R"(", "x"])");
    EXPECT_TRUE(text.starts_with(std::string("error: --from: from.png: records ") + option + " 'x', which no image may; the options"))
        << text;
  }
  for (const char* set : {"plugins=[evil.so]", "plugins.0=evil.so", "plugins"})
    EXPECT_TRUE(told(std::string(R"(["m/model.safetensors", "--set", ")") + set + R"("])").starts_with("error: --from: from.png: records"))
        << set;
  EXPECT_EQ(told(R"(["--plugin=evil.so"])"), "error: --from: from.png: names '--plugin=evil.so' instead of a model\n");
  folder_->file("loads.yaml", "model: {network: gaussian, parameterization: x0}\nplugins: [evil.so]\n");
  EXPECT_EQ(
      told(R"(["loads.yaml"])"),
      "error: --from: from.png: was made from loads.yaml, which loads plugins; name it, to say that it may: --from from.png loads.yaml\n");
  EXPECT_FALSE(fs::exists(folder_->path() / "made.png"));
}

TEST_F(Replay, AShortOptionReplacesTheImagesOwn) {
  ASSERT_EQ(sample({"-n", "3", "-o", "three.png"}).code, 0);
  ASSERT_EQ(at({"sample", "--from", "three.png", "-n2", "-o", "two"}).code, 0);
  EXPECT_TRUE(fs::exists(folder_->path() / "two/00001.png"));
  EXPECT_FALSE(fs::exists(folder_->path() / "two/00002.png"));
}

TEST_F(Replay, SeedsOfAllSizes) {
  ASSERT_EQ(sample({"-n", "1", "--seed", "18446744073709551615", "-o", "seed.png"}).code, 0);
  ASSERT_EQ(at({"sample", "--from", "seed.png", "-o", "seed2.png"}).code, 0);
  EXPECT_EQ(image("seed.png"), image("seed2.png"));
}

TEST_F(Replay, Mistakes) {
  EXPECT_EQ(said({"sample", "--from", "no.png"}), "error: --from: there is no file 'no.png'\n");
  write_png((folder_->path() / "plain.png").string(), Image(4, 4, 3));
  EXPECT_EQ(said({"sample", "--from", "plain.png"}),
            "error: --from: plain.png does not tell how it was made (it has no text 'brume.arguments', and none of A1111 or ComfyUI)\n");
  write_png((folder_->path() / "bad.png").string(), Image(4, 4, 3), {{"brume.arguments", "[\"a\", 1]"}});
  EXPECT_EQ(said({"sample", "--from", "bad.png"}), "error: --from: bad.png: its text 'brume.arguments' is damaged\n");
  const std::string model = "m/model.safetensors";
  EXPECT_EQ(said({"sample", model, "--prompt", "a star"}),
            "error: --prompt: this model is not asked in words; --classes names what it makes\n");
  EXPECT_EQ(said({"sample", model, "--negative", "a star"}),
            "error: --negative: this model is not asked in words; --classes names what it makes\n");
  EXPECT_EQ(said({"sample", model, "--prompts", "none.txt"}), "error: --prompts: there is no file 'none.txt'\n");
}

}  // namespace
}  // namespace brume::test
