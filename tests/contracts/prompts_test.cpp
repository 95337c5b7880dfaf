// How clip_text reads prompts while sampling: weights, chunks, clip skip and textual inversions, each the plain reading if it says
// nothing.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "brume/core/conditioner.h"
#include "brume/core/prompt.h"
#include "brume/core/warnings.h"
#include "brume/interop/textual_inversion.h"
#include "brume/weights/safetensors.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

/// Contexts of ten tokens, eight of them the prompt's.
class Prompts : public testing::Test {
 protected:
  Prompts() : encoder(make<Conditioner>(yaml)->encoder({1, &small_tokenizers()})) {}
  Condition encode(const std::vector<Annotation>& wanted, const PromptReading& reading) const {
    return encoder->encode(ConditionRequest{.annotations = wanted, .reading = &reading});
  }
  Condition encode(const std::string& prompt, const PromptReading& reading = {}) const { return encode({{.caption = prompt}}, reading); }
  Tensor context(const std::string& prompt, const PromptReading& reading = {}) const { return encode(prompt, reading).context; }

  static constexpr const char* yaml =
      "{type: clip_text, tokenizer: clip, trainable: true, width: 16, depth: 2, heads: 2, mlp: 32, length: 10}";
  static constexpr const char* longer = "a red circle left of a blue square above a green star and a ring";
  const at::NoGradGuard no_grad;
  std::shared_ptr<const ConditionEncoder> encoder;
};

TEST_F(Prompts, ReadAsTrainedWhereNothingIsSaid) {
  const Tensor plain = context("a red circle");
  EXPECT_TRUE(at::equal(plain, encoder->encode({{.caption = "a red circle"}}).context));
  for (const PromptReading& reading : {PromptReading{.weights = true}, PromptReading{.chunks = true}, PromptReading{.skip = 0},
                                       PromptReading{.words = {{"<none>", at::ones({2, 16})}}}})
    EXPECT_TRUE(at::equal(plain, context("a red circle", reading)));
  EXPECT_TRUE(at::equal(plain, context("a (red:1) circle", {.weights = true}))) << "weight 1 is no weight, bit for bit";
  EXPECT_FALSE(at::equal(context("a (red) circle"), plain)) << "brackets are words where weights are not read";
}

TEST_F(Prompts, WeightsMultiplyTheirTokensAndTheMeanStays) {
  const PromptReading weights{.weights = true};
  const Tensor plain = context("a red circle"), got = context("a (red circle:1.5)", weights);
  EXPECT_NEAR(got.mean().item<double>(), plain.mean().item<double>(), 1e-6);
  const Tensor ratio = got / plain;
  const double rest = ratio[0][0][0].item<double>();
  // begin, a, and the padding from the end token on; tokens two and three count more.
  EXPECT_TRUE(ratio.narrow(1, 0, 2).allclose(at::full({1, 2, 16}, rest), 1e-4));
  EXPECT_TRUE(ratio.narrow(1, 2, 1).allclose(at::full({1, 1, 16}, 1.5 * rest), 1e-4));
  EXPECT_TRUE(ratio.narrow(1, 9, 1).allclose(at::full({1, 1, 16}, rest), 1e-4));
  EXPECT_FALSE(got.allclose(context("a [red circle]", weights)));
}

TEST_F(Prompts, ChunksAreContextsSideBySide) {
  const PromptReading chunks{.chunks = true};
  const Tensor two = context("a red circle BREAK a blue square", chunks);
  EXPECT_TRUE(at::equal(two.narrow(1, 0, 10), context("a red circle")));
  EXPECT_TRUE(at::equal(two.narrow(1, 10, 10), context("a blue square")));
  std::string warned;
  const WarningScope scope([&](const std::string& text) { warned += text; });
  const Tensor all = context(longer, chunks);
  EXPECT_EQ(warned, "") << "nothing is cut";
  EXPECT_GT(all.size(1), 10);
  EXPECT_TRUE(at::equal(all.narrow(1, 0, 10), context(longer))) << "the first chunk is the cut prompt";
  EXPECT_NE(warned.find("is longer than 10 tokens"), std::string::npos);
}

TEST_F(Prompts, TheNegativeIsAsLongAsThePrompt) {
  const PromptReading chunks{.chunks = true};
  const Condition c = encode({{.caption = "a red circle BREAK a star", .negative = "a ring"}}, chunks);
  EXPECT_EQ(c.null->context.sizes(), c.context.sizes());
  EXPECT_FALSE(c.context_mask.defined());
  EXPECT_TRUE(at::equal(c.null->context, at::cat({context("a ring"), context("")}, 1))) << "filled up by the empty prompt";
  const Condition other = encode({{.caption = "a star", .negative = "a red circle BREAK a ring"}}, chunks);
  EXPECT_TRUE(at::equal(other.context, at::cat({context("a star"), context("")}, 1)));
}

TEST_F(Prompts, NoOtherImageOfABatchIsSeen) {
  const Condition c = encode({{.caption = "a star"}, {.caption = "a red circle BREAK a ring"}}, {.chunks = true});
  EXPECT_TRUE(at::equal(c.context.narrow(0, 0, 1).narrow(1, 0, 10), context("a star")));
  EXPECT_TRUE(at::equal(c.context_mask, at::cat({at::cat({at::ones({1, 10}), at::zeros({1, 10})}, 1), at::ones({1, 20})})));
  EXPECT_TRUE(at::equal(c.null->context_mask, c.context_mask));
}

TEST_F(Prompts, ClipSkipIsTheModelsOption) {
  const std::string skipping = std::string(yaml).substr(0, std::string(yaml).size() - 1) + ", clip_skip: 1}";
  const auto other = make<Conditioner>(skipping)->encoder({1, &small_tokenizers()});
  const Tensor skipped = context("a star", {.skip = 1});
  EXPECT_TRUE(at::equal(skipped, other->encode({{.caption = "a star"}}).context));
  EXPECT_FALSE(at::equal(skipped, context("a star")));
  EXPECT_EQ(error_of([&] { context("a star", {.skip = 3}); }),
            "sample.prompts: clip_skip = 3 is more than the 2 layers of the text encoder");
}

TEST_F(Prompts, AWordStandsForItsVectors) {
  Tensor table;
  for (const Weight& w : encoder->weights())
    if (w.name == "text_model.embeddings.token_embedding.weight") table = w.tensor;
  // The vectors of a token are that token.
  const PromptReading reading{
      .words = {{"<x>", table.narrow(0, 300, 2).clone()}, {"<x> y", at::zeros({1, 16})}, {"cat", at::ones({1, 16})}}};
  const Tensor once = context("a <x>", reading);
  EXPECT_FALSE(at::equal(once, context("a <x>")));
  EXPECT_FALSE(at::equal(once, context("a <x> y", reading))) << "the longest word";
  EXPECT_TRUE(at::equal(context("a concat", reading), context("a concat"))) << "a word is no part of another";
  EXPECT_FALSE(at::equal(context("a cat", reading), context("a cat")));
  EXPECT_FALSE(at::equal(context("(cat:1.4)", {.weights = true, .words = reading.words}), context("cat", reading)));
  EXPECT_EQ(error_of([&] {
              context("a", {.words = {{"<x>", at::ones({1, 24})}}});
            }),
            "sample.prompts: the vectors of the embedding '<x>' have 24 numbers, and this model's text encoder has 16");
}

TEST_F(Prompts, AWordIsNotTornOverTwoChunks) {
  // Eight tokens of room, of which the words before take six: three vectors do not fit behind them.
  const PromptReading reading{.chunks = true, .words = {{"<x>", at::ones({3, 16})}}};
  const std::string before = "a a a a a a";
  const Tensor torn = context(before + " <x> a", reading);
  EXPECT_TRUE(at::equal(torn, context(before + " BREAK <x> a", reading)));
  EXPECT_TRUE(at::equal(context("a a a a a <x>", reading), context("a a a a a <x>", {.words = reading.words}))) << "it just fits";
  const PromptReading longer_than_a_chunk{.chunks = true, .words = {{"<x>", at::ones({9, 16})}}};
  EXPECT_EQ(context("<x>", longer_than_a_chunk).size(1), 20);
  std::string warned;
  const WarningScope scope([&](const std::string& text) { warned += text; });
  context(before + " <x>", {.words = reading.words});
  EXPECT_NE(warned.find("and vectors of \"<x>\""), std::string::npos) << warned;
}

// SDTokenizer.tokenize_with_weights() of ComfyUI's sd1_clip.py.
TEST_F(Prompts, ComfyUiTearsNoShortWordAndKnowsNoBreak) {
  const PromptReading comfy{.weights = true, .chunks = true, .absolute = true}, chunks{.chunks = true};
  const std::string before = "a a a a a a";  // and room for two tokens
  EXPECT_TRUE(at::equal(context(before + " 1x2y", comfy), context(before + " BREAK 1x2y", chunks)));
  EXPECT_FALSE(at::equal(context(before + " 1x2y", chunks), context(before + " BREAK 1x2y", chunks)));
  EXPECT_TRUE(at::equal(context(before + " 1x2y3x4y", comfy), context(before + " 1x2y3x4y", chunks))) << "eight tokens are torn";
  EXPECT_TRUE(at::equal(context("a BREAK a", comfy), context("a break a")));
}

TEST_F(Prompts, NothingAfterABreakIsNoChunk) {
  const PromptReading chunks{.chunks = true};
  EXPECT_TRUE(at::equal(context("a red circle BREAK ", chunks), context("a red circle")));
  EXPECT_TRUE(at::equal(context("BREAK", chunks), context("")));
  EXPECT_EQ(context("BREAK a BREAK BREAK", chunks).size(1), 30) << "empty chunks before others are chunks (A1111)";
}

TEST_F(Prompts, ComposedAndDecomposedWordsAreTheSame) {
  const PromptReading reading{.words = {{"caf\xC3\xA9", at::ones({1, 16})}}};
  EXPECT_TRUE(at::equal(context("a cafe\xCC\x81", reading), context("a caf\xC3\xA9", reading)));
  EXPECT_FALSE(at::equal(context("a cafe\xCC\x81", reading), context("a cafe\xCC\x81")));
}

TEST_F(Prompts, EmbeddingFiles) {
  const TempFolder folder;
  const auto file = [&](const std::string& name, const NamedTensors& tensors) {
    write_safetensors(folder.file(name), tensors, {});
    return folder.file(name);
  };
  const Tensor two = at::ones({2, 16});
  const Word named = read_embedding(file("a.safetensors", {{"<cat-toy>", at::ones({16})}}));
  EXPECT_EQ(named.text, "<cat-toy>");
  EXPECT_EQ(named.vectors.sizes(), at::IntArrayRef({1, 16}));
  EXPECT_EQ(read_embedding(file("style.safetensors", {{"emb_params", two.to(at::kHalf)}})).text, "style");
  EXPECT_EQ(read_embedding(file("style.safetensors", {{"string_to_param.*", two}, {"string_to_token.*", at::ones({}, at::kLong)}})).text,
            "style");
  EXPECT_EQ(read_embedding(file("style.safetensors", {{"string_to_param.sks", two}})).text, "sks");
  const Word asked = read_embedding(file("style.safetensors", {{"emb_params", two}}) + ":my style");
  EXPECT_EQ(asked.text, "my style");
  EXPECT_TRUE(at::equal(asked.vectors, two));
  const Word xl = read_embedding(file("xl.safetensors", {{"clip_g", at::ones({2, 20})}, {"clip_l", two}}));
  EXPECT_EQ(xl.text, "xl");
  EXPECT_TRUE(at::equal(xl.vectors, two));
  ASSERT_EQ(xl.others.size(), 1u);
  EXPECT_EQ(xl.others[0].sizes(), at::IntArrayRef({2, 20}));
  EXPECT_EQ(
      without(error_of([&] {
                read_embedding(file("more.safetensors", {{"clip_l", two}, {"clip_x", two}}));
              }),
              folder),
      "more.safetensors: is no textual inversion, which is one tensor of vectors, or clip_l and clip_g (SDXL): it has 2 (clip_l, clip_x)");
  EXPECT_EQ(error_of([&] { read_embedding("none.pt:x"); }), "embeddings: there is no file 'none.pt'");
}

}  // namespace
}  // namespace brume::test
