// Conditioners of words: what is cut, what is refused, and several at once.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>

#include <algorithm>

#include "brume/core/conditioner.h"
#include "brume/core/warnings.h"
#include "brume/text/sentencepiece.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

constexpr const char* short_text = "{type: text, tokenizer: tokenizer.model, width: 16, depth: 1, length: 8}";
constexpr const char* class_and_text =
    "{type: composite, of: [{type: class_label, classes: 3}, {type: text, tokenizer: tokenizer.model, width: 16}]}";

class Captions : public testing::Test {
 protected:
  void SetUp() override {
    if (!text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing();
  }
  static std::shared_ptr<const ConditionEncoder> encoder(const std::string& yaml, const Files& files = small_tokenizers()) {
    return make<Conditioner>(yaml)->encoder({1, &files});
  }
  static std::vector<Annotation> prompts(const std::vector<std::string>& captions) {
    std::vector<Annotation> all;
    for (const std::string& c : captions) all.push_back({.label = 1, .caption = c});
    return all;
  }
};

TEST_F(Captions, WhatIsTooLongIsCutAndSaidOnce) {
  const auto short_one = encoder(short_text);
  const at::NoGradGuard no_grad;
  std::string said;
  const WarningScope scope([&](const std::string& text) { said += text + "\n"; });
  const Condition c = short_one->encode(prompts({"a red circle left of a white ring", "a red circle", "a red circle"}));
  short_one->encode(prompts({"a red circle left of a white ring"}));
  EXPECT_EQ(said,
            "a prompt is longer than 8 tokens, and its end is left out: \"left of a white ring\" (of \"a red circle left of a "
            "white ring\")\n");
  EXPECT_TRUE(at::equal(c.context[0], c.context[1])) << "what is left is the beginning";
}

TEST_F(Captions, ManyCutPromptsDoNotFloodTheScreen) {
  const auto short_one = encoder(short_text);
  std::string said;
  const WarningScope scope([&](const std::string& text) { said += text + "\n"; });
  for (int i = 0; i < 100; ++i) short_one->encode(prompts({"a red circle left of a white ring " + std::string(size_t(i), 'e')}));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 11);
  EXPECT_TRUE(said.ends_with("more prompts are longer than 8 tokens; no more is said of them\n")) << said;
}

TEST_F(Captions, Mistakes) {
  EXPECT_EQ(error_of([] { encoder(short_text)->encode(prompts({"a \xFF"})); }), "a prompt is not UTF-8 at byte 2: \"a \\xff\"");
  EXPECT_NE(error_of([] { make<Conditioner>("text"); }).find("tokenizer: the file is missing; `brume tokenizer train` makes one"),
            std::string::npos);
  EXPECT_EQ(error_of([] { make<Conditioner>("{type: text, tokenizer: none.model}")->encoder({}); }),
            "none.model: cannot be opened: No such file or directory");
  EXPECT_EQ(error_of([] { encoder("{type: text, tokenizer: other.model}"); }),
            "tokenizer: other.model is not the one this model was trained with, which it holds: clip/merges.txt, clip/vocab.json, "
            "tokenizer.model");
  EXPECT_NE(error_of([] { make<Conditioner>("{type: text, tokenizer: t, width: 30, heads: 4}"); }).find("must divide width"),
            std::string::npos);
  const TempFolder folder;
  folder.file("vocab.json", small_tokenizers().at("clip/vocab.json"));
  folder.file("merges.txt", small_tokenizers().at("clip/merges.txt"));
  EXPECT_EQ(error_of([&] { make<Conditioner>("{type: clip_text, tokenizer: " + folder.path().string() + "}")->encoder({}); }),
            "weights: the file is missing, and the encoder is not trained");
}

TEST_F(Captions, TheCheckpointsOwnTokenizerIsTaken) {
  const TempFolder folder;
  const std::string path = folder.file("t.model", "not a tokenizer any more");
  const Files stored{{path, small_tokenizers().at("tokenizer.model")}};
  const std::string yaml = "{type: text, width: 16, tokenizer: " + path + "}";
  EXPECT_EQ(make<Conditioner>(yaml)->encoder({1, &stored})->files(), stored);
  EXPECT_EQ(error_of([&] { make<Conditioner>(yaml)->encoder({}); }), path + ": is no sentencepiece model");
}

TEST_F(Captions, EachPartComesFromItsCondition) {
  const at::NoGradGuard no_grad;
  const auto conditioner = make<Conditioner>(class_and_text);
  EXPECT_EQ(conditioner->traits().classes, 3);
  EXPECT_EQ(conditioner->traits().class_rows, 4);
  EXPECT_EQ(conditioner->traits().context_width, 16);
  EXPECT_TRUE(conditioner->traits().captions);
  const Condition c = conditioner->encoder({1, &small_tokenizers()})->encode(prompts({"a red circle"}));
  EXPECT_EQ(c.classes.item<int64_t>(), 1);
  EXPECT_EQ(c.null->classes.item<int64_t>(), 3);
  EXPECT_EQ(c.context.size(2), 16);
  EXPECT_TRUE(c.null->context.defined());
  EXPECT_TRUE(c.null->context_mask.defined());
}

TEST_F(Captions, SeveralThatDoNotGoTogether) {
  const auto said = [](const std::string& yaml) { return error_of([&] { make<Conditioner>(yaml); }); };
  const auto holds = [&](const std::string& yaml, const std::string& words) {
    EXPECT_NE(said(yaml).find(words), std::string::npos) << said(yaml);
  };
  holds("composite", "of: is empty; it takes a list of conditions");
  holds("{type: composite, of: [class_label, class_label]}", "of: two conditions are made of classes, and the network takes one");
  holds("{type: composite, of: [{type: text, tokenizer: a}, {type: text, tokenizer: b}]}", "of: two conditions are made of tokens");
  holds("{type: composite, dropout: 0.1, of: [{type: class_label, dropout: 0}]}", "all can only be left out if each can be");
  EXPECT_FALSE(
      make<Conditioner>("{type: composite, of: [{type: class_label, dropout: 0}, {type: text, tokenizer: t}]}")->traits().has_null);
}

/// How often class and caption are left out.
struct Dropped {
  double classes = 0, captions = 0, both = 0;
};
Dropped dropped(const std::string& yaml) {
  const auto encoder = make<Conditioner>(yaml)->encoder({1, &small_tokenizers()});
  const at::NoGradGuard no_grad;
  const std::vector<Annotation> all(4000, Annotation{.label = 1, .caption = "a red circle"});
  at::Generator random = at::detail::createCPUGenerator(2);
  const Condition c = encoder->encode(all, &random), plain = encoder->encode({all.front()});
  const Tensor classes = (c.classes == 3).to(at::kDouble), captions = (c.context == plain.null->context).all(2).all(1).to(at::kDouble);
  return {classes.mean().item<double>(), captions.mean().item<double>(), (classes * captions).mean().item<double>()};
}

TEST_F(Captions, TogetherOrEachByItsOwn) {
  const std::string of =
      "of: [{type: class_label, classes: 3, dropout: 0.5}, {type: text, tokenizer: tokenizer.model, width: 16, dropout: 0.2}]";
  const Dropped each = dropped("{type: composite, " + of + "}"), all = dropped("{type: composite, dropout: 0.3, " + of + "}");
  EXPECT_NEAR(each.classes, 0.5, 0.04);
  EXPECT_NEAR(each.captions, 0.2, 0.04);
  EXPECT_NEAR(each.both, 0.1, 0.03);
  EXPECT_NEAR(all.both, 0.3, 0.04);
  EXPECT_EQ(all.classes, all.both);
  EXPECT_EQ(all.captions, all.both);
}

}  // namespace
}  // namespace brume::test
