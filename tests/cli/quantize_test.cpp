// brume quantize: what it measures, writes and says; the file with brume inspect, sample and bench; what it refuses.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

class Quantize : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    folder_->file(
        "m.yaml",
        "model:\n  image: {height: 8, width: 8}\n  network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, heads: 4}\n"
        "  conditioner: {type: class_label, classes: 5}\n  noise: cosine\n"
        "train: {data: {type: shapes}, batch: 2, steps: 2, preview: {count: 0}}\nsample: {steps: 2}\ncompute: {threads: 1}\n");
    const Finished done = at({"train", "m.yaml", "--out", "m"});
    ASSERT_EQ(done.code, 0) << done.err;
    quantized_ = at({"quantize", "m", "--data", "{type: shapes}", "-n", "8", "--threads", "1", "-o", "q.safetensors"});
    ASSERT_EQ(quantized_.code, 0) << quantized_.err;
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }

  inline static TempFolder* folder_ = nullptr;
  inline static Finished quantized_;
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_F(Quantize, SaysWhatEachLayerLoses) {
  EXPECT_TRUE(has(quantized_.out, " %  network.input_blocks.1.0.in_layers.2.weight\n")) << quantized_.out;
  EXPECT_TRUE(has(quantized_.out, "error of the network in int8: ")) << quantized_.out;
  EXPECT_TRUE(has(quantized_.out, "q.safetensors: ")) << quantized_.out;
  EXPECT_FALSE(has(quantized_.err, "warning")) << quantized_.err;
}

TEST_F(Quantize, WritesAFileThatSaysSoAndSamples) {
  const Finished seen = at({"inspect", "q.safetensors"});
  ASSERT_EQ(seen.code, 0) << seen.err;
  EXPECT_TRUE(has(seen.out, "  int8:\n    data: \"{type: shapes}, 8 images\"\n")) << seen.out;
  EXPECT_TRUE(has(seen.out, "network.input_blocks.1.0.in_layers.2.weight.int8_scale")) << seen.out;
  const Finished made = at({"sample", "q.safetensors", "-n", "2", "-o", "a.png"});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_FALSE(has(made.err, "was not measured in int8")) << made.err;
  EXPECT_EQ(at({"export", "q.safetensors", "--to", "diffusers", "out"}).code, 0);
}

TEST_F(Quantize, MeasuresOnNoiseWithAWord) {
  const Finished done = at({"quantize", "m", "-n", "2", "-o", "n.safetensors"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(has(done.err, "no --data: the layers are measured on noise alone")) << done.err;
}

TEST_F(Quantize, RefusesWhatItCannotDo) {
  const auto refused = [](const Finished& done, const std::string& text) {
    EXPECT_EQ(done.code, 2) << done.out;
    EXPECT_TRUE(has(done.err, text)) << done.err;
  };
  refused(at({"quantize", "q.safetensors", "-o", "r.safetensors"}),
          "q.safetensors: has weights of int8 already; quantize the model that it was made of");
  folder_->file("narrow.yaml",
                "model: {image: {height: 8, width: 8}, network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4}}\n"
                "train: {data: {type: shapes}, batch: 2, steps: 1, preview: {count: 0}}\ncompute: {threads: 1}\n");
  ASSERT_EQ(at({"train", "narrow.yaml", "--out", "narrow"}).code, 0);
  refused(at({"quantize", "narrow", "-n", "1", "-o", "r.safetensors"}), "no layer of network 'unet' can compute in int8");
  refused(at({"train", "m.yaml", "--out", "t", "--precision", "int8"}),
          "compute.precision: int8 is for evaluation; training computes in fp32 or bf16");
  refused(at({"sample", "m", "--precision", "int9", "-o", "x.png"}), "did you mean 'int8'?");
}

}  // namespace
}  // namespace brume::test
