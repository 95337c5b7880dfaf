// brume adapter merge | extract | resize | inspect.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"
#include "brume/image/image.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/process.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

const std::string q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", t = "lora_te_text_model_encoder_layers_0_mlp_fc1";

class AdapterCommand : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    write_clip_tokenizer(*folder_, "clip");
    folder_->file("m.yaml",
                  "model:\n  image: {height: 8, width: 8}\n"
                  "  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: [8], heads: 2, "
                  "transformer: {depth: [1]}}\n"
                  "  conditioner: {type: clip_text, tokenizer: clip, trainable: true, width: 16, depth: 2, heads: 2, mlp: 32, length: 10}\n"
                  "  parameterization: v\n"
                  "train: {data: {type: shapes, caption: short}, batch: 1, steps: 1, preview: {count: 0}}\ncompute: {threads: 1}\n");
    ASSERT_EQ(at({"train", "m.yaml", "--out", "m"}).code, 0);
    write("style", "");
    write("stranger", std::string(64, '0'));
    write("own", sha256(MappedFile::open(folder_->file("m/model.safetensors"))->bytes()));
  }
  static void TearDownTestSuite() { delete folder_; }
  static void write(const std::string& name, const std::string& base) {
    std::map<std::string, std::string> metadata{{"ss_steps", "12"}, {"modelspec.trigger_phrase", "mist"}};
    if (!base.empty()) metadata["brume.base_sha256"] = base;
    write_safetensors(folder_->file(name + ".safetensors"),
                      {{q + ".lora_down.weight", at::randn({2, 16})},
                       {q + ".lora_up.weight", at::randn({16, 2})},
                       {q + ".alpha", at::full({}, 1.0f)},
                       {t + ".lora_down.weight", at::randn({3, 16})},
                       {t + ".lora_up.weight", at::randn({32, 3})}},
                      metadata);
  }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  static Finished adapter(std::vector<std::string> words) {
    words.insert(words.begin(), "adapter");
    return at(words);
  }
  /// Returns the largest difference of two files' tensors.
  static double apart(const std::string& a, const std::string& b) {
    double most = 0;
    const NamedTensors one = load_tensors(folder_->file(a)), two = load_tensors(folder_->file(b));
    EXPECT_EQ(one.size(), two.size());
    for (const NamedTensor& tensor : one)
      most = std::max(most, (tensor.tensor.to(at::kFloat) - find(two, tensor.name)->to(at::kFloat)).abs().max().item<double>());
    return most;
  }
  inline static TempFolder* folder_ = nullptr;
};

TEST_F(AdapterCommand, MergesWhatSamplingAdds) {
  const Finished done = adapter({"merge", "m", "--lora", "style.safetensors:0.5", "-o", "merged.safetensors"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.out, "merged.safetensors: 2 weights changed, kept in float32\n");
  const std::vector<std::string> rest{"--precision", "fp32", "--prompt", "a star", "--seed", "3", "-o"};
  std::vector<std::string> merged{"sample", "merged.safetensors"}, added{"sample", "m", "--lora", "style.safetensors:0.5"};
  merged.insert(merged.end(), rest.begin(), rest.end());
  added.insert(added.end(), rest.begin(), rest.end());
  merged.emplace_back("one.png"), added.emplace_back("two.png");
  ASSERT_EQ(at(merged).code, 0);
  ASSERT_EQ(at(added).code, 0);
  EXPECT_EQ(read_image(folder_->file("one.png")), read_image(folder_->file("two.png")));
}

TEST_F(AdapterCommand, RefusesAnotherBaseUnlessForced) {
  const std::string own = sha256(MappedFile::open(folder_->file("m/model.safetensors"))->bytes()), other(64, '0');
  EXPECT_EQ(adapter({"merge", "m", "--lora", "own.safetensors", "-o", "own_merged.safetensors"}).code, 0);
  const Finished refused = adapter({"merge", "m", "--lora", "stranger.safetensors", "-o", "forced.safetensors"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_EQ(refused.err, "error: stranger.safetensors: is of another base than m/model.safetensors; its metadata has the SHA-256 " + other +
                             ", and the model's is " + own + " (--force merges it all the same)\n");
  const Finished forced = adapter({"merge", "m", "--lora", "stranger.safetensors", "--force", "-o", "forced.safetensors"});
  EXPECT_EQ(forced.code, 0) << forced.err;
  EXPECT_NE(forced.err.find(other), std::string::npos);
  EXPECT_NE(forced.err.find(own), std::string::npos);
}

TEST_F(AdapterCommand, ExtractsWhatWasMerged) {
  ASSERT_EQ(adapter({"merge", "m", "--lora", "style.safetensors", "-o", "tuned.safetensors"}).code, 0);
  for (const char* layout : {"kohya", "diffusers"}) {
    const std::string out = fmt::format("{}.safetensors", layout), back = fmt::format("{}_back.safetensors", layout);
    const Finished done = adapter({"extract", "m", "tuned.safetensors", "--rank", "3", "--layout", layout, "-o", out});
    ASSERT_EQ(done.code, 0) << done.err;
    EXPECT_EQ(done.out, out + ": rank 3 of 2 weights holds 100.00 % of the difference's square\n");
    ASSERT_EQ(adapter({"merge", "m", "--lora", out, "-o", back}).code, 0);
    EXPECT_LT(apart(back, "tuned.safetensors"), 1e-5);
  }
  EXPECT_EQ(adapter({"extract", "m", "m", "-o", "none.safetensors"}).err,
            "error: m/model.safetensors: does not differ from m/model.safetensors in a weight that a LoRA can hold\n");
}

/// Other programs refuse a file that changes a table of embeddings.
TEST_F(AdapterCommand, LeavesTablesOfEmbeddingsOut) {
  ASSERT_EQ(adapter({"merge", "m", "--lora", "style.safetensors", "-o", "styled.safetensors"}).code, 0);
  std::map<std::string, std::string> metadata;
  NamedTensors tensors = load_tensors(folder_->file("styled.safetensors"), &metadata);
  for (NamedTensor& tensor : tensors)
    if (tensor.name.ends_with("_embedding.weight")) tensor.tensor = tensor.tensor + 1;
  write_safetensors(folder_->file("tables.safetensors"), tensors, metadata);
  const Finished done = adapter({"extract", "m", "tables.safetensors", "--rank", "3", "-o", "no_tables.safetensors"});
  EXPECT_EQ(done.out, "no_tables.safetensors: rank 3 of 2 weights holds 100.00 % of the difference's square\n") << done.err;
  EXPECT_NE(done.err.find("2 weights differ that a LoRA does not hold, like 'conditioner.text_model.embeddings."), std::string::npos)
      << done.err;
}

TEST_F(AdapterCommand, ResizesToTheNearestOfThatRank) {
  EXPECT_EQ(adapter({"resize", "style.safetensors", "--rank", "8", "-o", "same.safetensors"}).out,
            "same.safetensors: rank 3 of 2 modules\n");
  std::map<std::string, std::string> metadata;
  load_tensors(folder_->file("same.safetensors"), &metadata);
  EXPECT_EQ(metadata["ss_network_dim"], "3") << "no matrix becomes larger";
  ASSERT_EQ(adapter({"merge", "m", "--lora", "style.safetensors", "-o", "whole.safetensors"}).code, 0);
  ASSERT_EQ(adapter({"merge", "m", "--lora", "same.safetensors", "-o", "resized.safetensors"}).code, 0);
  EXPECT_LT(apart("resized.safetensors", "whole.safetensors"), 1e-5);
  ASSERT_EQ(adapter({"resize", "style.safetensors", "--rank", "1", "-o", "one.safetensors"}).code, 0);
  const NamedTensors one = load_tensors(folder_->file("one.safetensors"));
  EXPECT_EQ(find(one, q + ".lora_down.weight")->sizes(), (std::vector<int64_t>{1, 16}));
  EXPECT_EQ(find(one, t + ".lora_up.weight")->sizes(), (std::vector<int64_t>{32, 1}));
}

TEST_F(AdapterCommand, SaysWhatAnAdapterIs) {
  EXPECT_EQ(adapter({"inspect", "stranger.safetensors"}).out,
            "LoRA: 2 modules\nrank: 2, 3\nalpha / rank: 0.5, 1\nbase SHA-256: " + std::string(64, '0') + "\nsteps: 12\ntriggers: mist\n");
  EXPECT_EQ(adapter({"inspect", "m/model.safetensors"}).code, 2);
}

}  // namespace
}  // namespace brume::test
