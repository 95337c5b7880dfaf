// brume sample --from a picture of another program: the options that it becomes, and what is said of the rest.
#include <gtest/gtest.h>

#include "brume/image/image.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

const std::string a1111 =
    "a cat\nNegative prompt: ugly <lora:mist:0.5>\n"
    "Steps: 3, Sampler: Euler, Schedule type: Karras, CFG scale: 4, Seed: 7, Size: 32x32, Model hash: ab, Model: toy, Clip skip: 2, ENSD: "
    "31337, Version: v1.10.1";

class ForeignReplay : public testing::Test {
 protected:
  void SetUp() override { BRUME_NEED_REF("pipe/tiny_sd/unet/config.json"); }
  Finished sample(std::vector<std::string> more) const {
    more.insert(more.begin(), "sample");
    more.insert(more.end(), {"--precision", "fp32", "--threads", "1"});
    return run_brume(std::move(more), {folder_.path()});
  }
  std::string made_of(const std::map<std::string, std::string>& text) const {
    write_png(folder_.file("theirs.png"), Image(4, 4, 3), text);
    return "theirs.png";
  }
  Image image(const char* name) const { return read_image(folder_.file(name)); }
  static void has(const std::string& text, const std::string& part) { EXPECT_NE(text.find(part), text.npos) << text; }
  const std::string model_ = ref_path("pipe/tiny_sd").string();
  TempFolder folder_;
};

TEST_F(ForeignReplay, OfA1111IsTheSameAsItsOptions) {
  const Finished done = sample({"--from", made_of({{"parameters", a1111}}), model_, "-o", "again.png"});
  ASSERT_EQ(done.code, 0) << done.err;
  has(done.err, "theirs.png: made by A1111 from toy: brume sample ");
  has(done.err, "not taken over: <lora:mist:0.5>: --lora FILE:STRENGTH adds it");
  has(done.err, "not taken over: ENSD: 31337");
  const Finished by_hand = sample({model_,     "--like",  "a1111:Euler Karras",
                                   "--prompt", "a cat",   "--negative",
                                   "ugly ",    "--steps", "3",
                                   "--cfg",    "4",       "--seed",
                                   "7",        "--width", "32",
                                   "--height", "32",      "--clip-skip",
                                   "1",        "-o",      "hand.png"});
  ASSERT_EQ(by_hand.code, 0) << by_hand.err;
  EXPECT_EQ(image("again.png"), image("hand.png"));
  ASSERT_EQ(sample({"--from", "theirs.png", model_, "--seed", "8", "-o", "other.png"}).code, 0);
  EXPECT_NE(image("other.png"), image("hand.png"));
}

TEST_F(ForeignReplay, OfComfyUI) {
  const std::string graph = R"({"3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 3, "cfg": 4, "sampler_name": "euler",
      "scheduler": "normal", "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["6", 0], "latent_image": ["5", 0]}},
      "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "toy"}}, "5": {"class_type": "EmptyLatentImage", "inputs":
      {"width": 32, "height": 32}}, "6": {"class_type": "CLIPTextEncode",
      "inputs": {"text": "a cat", "clip": ["4", 1]}}, "8": {"class_type":
      "VAEDecode", "inputs": {"samples": ["3", 0]}}, "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}}})";
  const Finished done = sample({"--from", made_of({{"prompt", graph}}), model_, "-o", "again.png"});
  ASSERT_EQ(done.code, 0) << done.err;
  has(done.err, "theirs.png: made by ComfyUI from toy: brume sample ");
  const Finished by_hand = sample({model_, "--like", "comfyui:euler normal", "--prompt", "a cat", "--negative", "a cat", "--steps", "3",
                                   "--cfg", "4", "--seed", "7", "--width", "32", "--height", "32", "-o", "hand.png"});
  ASSERT_EQ(by_hand.code, 0) << by_hand.err;
  EXPECT_EQ(image("again.png"), image("hand.png"));
}

TEST_F(ForeignReplay, AModelIsAskedFor) {
  const Finished none = sample({"--from", made_of({{"parameters", a1111}}), "-o", "again.png"});
  EXPECT_EQ(none.code, 2);
  EXPECT_EQ(none.err,
            "error: --from: theirs.png: was made by A1111 from \"toy\", and names no file of a model; name one: --from theirs.png MODEL\n");
}

TEST_F(ForeignReplay, UnknownSamplersAndImagesAreNamed) {
  const Finished done = sample({"--from",
                                made_of({{"parameters",
                                          "a\x1b[31m cat\nSteps: 2, Sampler: Quux, CFG scale: 4, Seed: 1, Size: 32x32, Denoising "
                                          "strength: 0.5"}}),
                                model_, "-o", "again.png"});
  EXPECT_EQ(done.code, 0) << done.err;
  has(done.err, "not taken over: the sampler 'Quux'");
  has(done.err, "not taken over: the image that it was made from, which it does not hold: --image FILE gives it");
  EXPECT_EQ(done.err.find('\x1b'), std::string::npos) << "a picture does not steer the terminal";
}

TEST_F(ForeignReplay, NumbersThatAreNoneAreNamed) {
  const std::string text = "a cat\nSteps: four, Sampler: Euler, CFG scale: x, Seed: -1, Size: 32xx, Variation seed: 0.5";
  const Finished done = sample({"--from", made_of({{"parameters", text}}), model_, "--steps", "2", "-o", "again.png"});
  EXPECT_EQ(done.code, 0) << done.err;
  for (const char* field : {"Steps: four", "CFG scale: x", "Seed: -1", "Size: 32xx", "Variation seed: 0.5"})
    has(done.err, std::string("not taken over: ") + field);
}

}  // namespace
}  // namespace brume::test
