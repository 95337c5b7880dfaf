// brume sample: the options of a model that is conditioned by CLIP's text encoder; each is recorded in the image and made again from it.
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>

#include "brume/image/image.h"
#include "brume/weights/safetensors.h"
#include "support/process.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

class Generation : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    write_clip_tokenizer(*folder_, "clip");
    folder_->file("m.yaml",
                  "model:\n  image: {height: 8, width: 8}\n"
                  "  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: [8], heads: 2, "
                  "zero_init: false, transformer: {depth: [1]}}\n"
                  "  conditioner: {type: clip_text, tokenizer: clip, trainable: true, width: 16, depth: 2, heads: 2, mlp: 32, length: 10}\n"
                  "  parameterization: v\n"
                  "train: {data: {type: shapes, caption: short}, batch: 4, steps: 2, preview: {count: 0}}\n"
                  "sample: {steps: 2, guidance: [{type: cfg, scale: 6}]}\ncompute: {threads: 1}\n");
    const Finished done = at({"train", "m.yaml", "--out", "m"});
    ASSERT_EQ(done.code, 0) << done.err;
    const std::string q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
                      t = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    write_safetensors(folder_->file("style.safetensors"), {{q + ".lora_down.weight", at::ones({2, 16})},
                                                           {q + ".lora_up.weight", at::ones({16, 2})},
                                                           {q + ".alpha", at::full({}, 1.0f)},
                                                           {t + ".lora_down.weight", at::ones({1, 16})},
                                                           {t + ".lora_up.weight", at::ones({32, 1})}});
    write_safetensors(folder_->file("other.safetensors"),
                      {{"lora_unet_x.lora_down.weight", at::ones({1, 16})}, {"lora_unet_x.lora_up.weight", at::ones({16, 1})}});
    write_safetensors(folder_->file("word.safetensors"), {{"emb_params", at::full({2, 16}, 3.0f)}});
  }
  static void TearDownTestSuite() { delete folder_; }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  static Finished sample(std::vector<std::string> more) {
    std::vector<std::string> words{"sample", "m/model.safetensors", "--precision", "fp32"};
    words.insert(words.end(), more.begin(), more.end());
    return at(words);
  }
  static Image image(const std::string& name) { return read_image((folder_->path() / name).string()); }
  static Image made(std::vector<std::string> more) {
    more.insert(more.end(), {"-o", "made.png"});
    const Finished done = sample(std::move(more));
    EXPECT_EQ(done.code, 0) << done.err;
    return image("made.png");
  }
  static std::string said(std::vector<std::string> more) {
    const Finished done = sample(std::move(more));
    EXPECT_EQ(done.code, 2);
    return done.err;
  }
  static TempFolder* folder_;
};
TempFolder* Generation::folder_ = nullptr;

TEST_F(Generation, EachOptionChangesTheImageAndIsRepeated) {
  const std::string prompt = "word (red:1.5) circle left of a blue square";
  const Image plain = made({"--prompt", prompt});
  for (const std::vector<std::string>& option : std::vector<std::vector<std::string>>{{"--lora", "style.safetensors:0.5"},
                                                                                      {"--embedding", "word.safetensors"},
                                                                                      {"--prompt-weights"},
                                                                                      {"--long-prompts", "chunks"},
                                                                                      {"--clip-skip", "1"}}) {
    std::vector<std::string> words{"--prompt", prompt};
    words.insert(words.end(), option.begin(), option.end());
    const Image changed = made(words);
    EXPECT_NE(changed, plain) << option[0];
    const Finished again = at({"sample", "--from", "made.png", "-o", "again.png"});
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(image("again.png"), changed) << option[0];
  }
}

TEST_F(Generation, LorasAddUp) {
  const Image plain = made({"--prompt", "a star"}), full = made({"--prompt", "a star", "--lora", "style.safetensors"});
  EXPECT_EQ(made({"--prompt", "a star", "--lora", "style.safetensors:0"}), plain);
  EXPECT_EQ(made({"--prompt", "a star", "--lora", "style.safetensors:0.5", "--lora", "style.safetensors:0.5"}), full);
  EXPECT_EQ(made({"--prompt", "a star", "--set", "sample.lora=[style.safetensors]"}), full);
  EXPECT_NE(full, plain);
}

TEST_F(Generation, ImagesPerPrompt) {
  ASSERT_EQ(sample({"--prompt", "a star", "--prompt", "a ring", "--images-per-prompt", "2", "-o", "four"}).code, 0);
  EXPECT_TRUE(fs::exists(folder_->path() / "four/00003.png"));
  const auto told = [](const std::string& name) { return read_png_text((folder_->path() / name).string()).at("brume"); };
  EXPECT_NE(told("four/00001.png").find("--prompt 'a star'"), std::string::npos);
  EXPECT_NE(told("four/00002.png").find("--prompt 'a ring'"), std::string::npos);
  ASSERT_EQ(at({"sample", "--from", "four/00002.png", "-o", "again.png"}).code, 0);
  EXPECT_EQ(image("again.png"), image("four/00002.png"));
  EXPECT_EQ(said({"--prompt", "a star", "--images-per-prompt", "2", "-n", "3"}),
            "error: --images-per-prompt and --count say both how many images there are; one of them does\n");
}

TEST_F(Generation, AnImageOfMoreThanEightBits) {
  write_png(folder_->file("grey.png"), Image(8, 8, 3, 204));
  write_safetensors(folder_->file("grey.safetensors"), {{"image", at::full({1, 3, 8, 8}, 0.8f)}});
  write_safetensors(folder_->file("thin.safetensors"), {{"image", at::full({1, 1, 8, 8}, 0.8f)}});
  EXPECT_EQ(made({"--prompt", "a star", "--image", "grey.safetensors", "--strength", "0.5"}),
            made({"--prompt", "a star", "--image", "grey.png", "--strength", "0.5"}));
  EXPECT_EQ(said({"--prompt", "a star", "--image", "thin.safetensors"}),
            "error: --image: thin.safetensors must hold one tensor [B, 3, H, W] of values in [0, 1]\n");
}

TEST_F(Generation, TheScaleThatANetworkImitatesIsSaidByDistilled) {
  folder_->file("g.yaml",
                "model:\n  image: {height: 8, width: 8}\n"
                "  network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4, zero_init: false}\n"
                "  conditioner: {type: composite, of: [{type: class_label, classes: 5, dropout: 0.1}, {type: guidance_scale, scale: 4}]}\n"
                "train: {data: {type: shapes}, batch: 4, steps: 1, preview: {count: 0}}\nsample: {steps: 2}\ncompute: {precision: fp32}\n");
  const Finished done = at({"train", "g.yaml", "--out", "g"});
  ASSERT_EQ(done.code, 0) << done.err;
  const auto made_with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words{"sample", "g/model.safetensors", "--classes", "0", "-n", "1", "-o", "g.png"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = at(words);
    EXPECT_EQ(done.code, 0) << done.err;
    return std::pair(image("g.png"), done.err.find("warning: --cfg: guides in addition to what the network imitates") != done.err.npos);
  };
  const auto [own, quiet] = made_with({});
  const auto [same, quiet_too] = made_with({"--set", "sample.guidance=[{type: distilled, scale: 4}]"});
  const auto [other, quiet_as_well] = made_with({"--set", "sample.guidance=[{type: distilled, scale: 9}]"});
  EXPECT_EQ(same, own);
  EXPECT_NE(other, own);
  EXPECT_FALSE(quiet || quiet_too || quiet_as_well);
  EXPECT_TRUE(made_with({"--cfg", "3"}).second);
}

TEST_F(Generation, ANegativePromptOfNoEffectIsTold) {
  const std::string warning = "warning: --negative: is of no effect, as no guidance steers away from it; --cfg 5 does\n";
  const auto err = [](std::vector<std::string> more) {
    more.insert(more.end(), {"--prompt", "a star", "--negative", "a ring", "-o", "negative.png"});
    const Finished done = sample(std::move(more));
    EXPECT_EQ(done.code, 0) << done.err;
    return done.err;
  };
  EXPECT_EQ(err({}).find(warning), std::string::npos);
  EXPECT_NE(err({"--cfg", "1"}).find(warning), std::string::npos);
  EXPECT_NE(err({"--set", "sample.guidance=[clip]"}).find(warning), std::string::npos);
}

TEST_F(Generation, AWordThatNoPromptHoldsIsTold) {
  const auto err = [](std::vector<std::string> more) {
    more.insert(more.end(), {"-o", "word.png"});
    const Finished done = sample(std::move(more));
    EXPECT_EQ(done.code, 0) << done.err;
    return done.err;
  };
  const std::vector<std::string> word{"--embedding", "word.safetensors"};
  EXPECT_EQ(err({"--prompt", "a word", word[0], word[1]}).find("warning"), std::string::npos);
  EXPECT_EQ(err({"--prompt", "a star", "--negative", "word", word[0], word[1]}).find("warning"), std::string::npos);
  EXPECT_NE(err({"--prompt", "a star", "--negative", "word", "--cfg", "1", word[0], word[1]}).find("--embedding word.safetensors: has no"),
            std::string::npos);
  EXPECT_NE(
      err({"--prompt", "a WORD", word[0], word[1]})
          .find("warning: --embedding word.safetensors: has no effect, as no prompt that is used holds its word 'word'; the prompt has "
                "'WORD', and word.safetensors:WORD makes that the word\n"),
      std::string::npos);
  EXPECT_NE(err({"--prompt", "a word", word[0], "word.safetensors:<w>"})
                .find("holds its word '<w>'; the prompt has the file's name 'word', and word.safetensors:word makes that the word\n"),
            std::string::npos);
  EXPECT_EQ(
      said({"--prompt", "a word", word[0], word[1], word[0], "word.safetensors:word"}),
      "error: embeddings: 'word.safetensors' and 'word.safetensors:word' both stand for the word 'word', and one can; FILE:WORD names "
      "another word\n");
}

TEST_F(Generation, WordsOfOtherProgramsAreTold) {
  const auto warned = [](const std::string& prompt, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{"--prompt", prompt, "-o", "word.png"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = sample(words);
    EXPECT_EQ(done.code, 0) << done.err;
    const size_t at = done.err.find("warning: --prompt");
    return at == std::string::npos ? "" : done.err.substr(at, done.err.find('\n', at) - at);
  };
  EXPECT_EQ(warned("a <lora:x:0.8> star"),
            "warning: --prompt \"a <lora:x:0.8> star\": '<lora:x:0.8>' is read as words; --lora FILE:STRENGTH adds a LoRA");
  EXPECT_EQ(warned("a star AND a ring"),
            "warning: --prompt \"a star AND a ring\": 'AND' is read as words; --prompt-changes reads it otherwise");
  EXPECT_NE(warned("a [red|blue] star"), "");
  EXPECT_NE(warned("a [red:blue:0.5] star"), "");
  EXPECT_EQ(warned("a (red:1.2) star"),
            "warning: --prompt \"a (red:1.2) star\": '(red:1.2)' is read as words; --prompt-weights reads it as a weight");
  EXPECT_EQ(warned("a (red:1.2) star", {"--prompt-weights"}), "");
  EXPECT_EQ(warned("a __colour__ star"),
            "warning: --prompt \"a __colour__ star\": '__colour__' is read as words; --wildcards FOLDER draws a line of a file for it");
  EXPECT_EQ(warned("a ____ star, snake__case and __two words__"), "");
  EXPECT_NE(warned("a star BREAK red"), "");
  const std::vector<std::array<const char*, 3>> compel{{"a red++ star", "red++", "1.21"},
                                                       {"a red-- star", "red--", "0.81"},
                                                       {"a (red star)1.3", "(red star)1.3", "1.3"},
                                                       {"a (red star)-", "(red star)-", "0.9"}};
  for (const auto& [prompt, words, weight] : compel)
    EXPECT_EQ(warned(prompt), fmt::format("warning: --prompt \"{}\": '{}' is read as words; compel's weight is (word:{}) here, which "
                                          "--prompt-weights reads",
                                          prompt, words, weight));
  EXPECT_NE(warned("(\"a\", \"star\").and()").find("'.and(' is read as words"), std::string::npos);
  EXPECT_EQ(warned("a star BREAK red", {"--long-prompts", "chunks"}), "");
  for (const char* plain : {"salt and pepper", "SAND and LAND", "a star (red)", "[red] star", "a star: 5", "BREAKFAST", "well-lit, 18+ -",
                            "(red)", "(a) 1.3", "__", "a__b"})
    EXPECT_EQ(warned(plain), "");
}

TEST_F(Generation, OptionsThatNoPromptUsesAreTold) {
  const auto told = [](std::vector<std::string> words) {
    words.insert(words.end(), {"-o", "word.png"});
    const Finished done = sample(words);
    EXPECT_EQ(done.code, 0) << done.err;
    return done.err;
  };
  const std::string drawn = "warning: --wildcards: has no effect, as no prompt holds a __NAME__\n",
                    region = "warning: --region: has no effect, as no prompt has parts joined by AND\n";
  folder_->file("colour.txt", "red\n");
  EXPECT_NE(told({"--prompt", "a star", "--wildcards", "."}).find(drawn), std::string::npos);
  EXPECT_EQ(told({"--prompt", "a __colour__ star", "--wildcards", "."}).find("warning: --wildcards"), std::string::npos);
  const std::string steered = told({"--prompt", "a star", "--negative", "a __colour__ ring", "--cfg", "3", "--wildcards", "."});
  EXPECT_EQ(steered.find("__"), std::string::npos) << steered;
  EXPECT_NE(told({"--prompt", "a star", "--region", "all"}).find(region), std::string::npos);
}

TEST_F(Generation, Mistakes) {
  EXPECT_EQ(said({"--prompt", "a", "--lora", "other.safetensors"}),
            "error: other.safetensors: does not fit this model, which is of another architecture; nothing was changed:\n"
            "error: other.safetensors: 'lora_unet_x' has no place in this model\n");
  EXPECT_EQ(said({"--prompt", "a", "--lora", "none.safetensors:1"}), "error: lora: there is no file 'none.safetensors'\n");
  EXPECT_EQ(said({"--prompt", "a", "--clip-skip", "3"}),
            "error: sample.prompts: clip_skip = 3 is more than the 2 layers of the text encoder\n");
  EXPECT_EQ(said({"--prompt", "a", "--long-prompts", "chunk"}),
            "error: --long-prompts chunk: sample.prompts: long: unknown value 'chunk'; did you mean 'chunks'?\n");
  folder_->file("plain.yaml", "model: {image: {channels: 1, height: 4, width: 4}, network: gaussian, parameterization: x0}\n");
  EXPECT_EQ(
      at({"sample", "plain.yaml", "--clip-skip", "1"}).err,
      "error: --clip-skip 1: sample.prompts: is for models with CLIP's text encoder (conditioner: clip_text), and this one has none\n");
}

}  // namespace
}  // namespace brume::test
