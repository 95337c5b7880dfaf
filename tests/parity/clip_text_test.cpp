// Parity with transformers: its CLIP tokenizer on ten texts in two vocabularies, and the text encoder of a small Stable Diffusion.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <filesystem>

#include "brume/core/conditioner.h"
#include "brume/files/mapped_file.h"
#include "brume/nn/blocks/layers.h"
#include "brume/text/clip_tokenizer.h"
#include "brume/weights/safetensors.h"
#include "support/refs.h"
#include "support/registry.h"

namespace brume::test {
namespace {

text::ClipTokenizer tokenizer(const std::string& folder, std::optional<int64_t> pad = {}) {
  const auto read = [&](const char* file) { return std::string(MappedFile::open((ref_path(folder) / file).string())->bytes()); };
  return {read("vocab.json"), read("merges.txt"), folder, pad};
}

void expect_table(const std::string& folder, const char* column, std::optional<int64_t> pad = {}) {
  BRUME_NEED_REF("pipe/tokenizer_table.json");
  BRUME_NEED_REF(folder);
  const text::ClipTokenizer clip = tokenizer(folder, pad);
  for (const auto& row : ref_json("pipe/tokenizer_table.json").at("texts")) {
    std::vector<int64_t> ids = clip.encode(row.at("text").get<std::string>());
    ids.resize(std::min<size_t>(ids.size(), 75));
    ids.insert(ids.begin(), clip.begin());
    ids.push_back(clip.end());
    ids.resize(77, clip.padding());
    EXPECT_EQ(ids, row.at(column).get<std::vector<int64_t>>()) << row.at("text");
  }
}

TEST(ClipText, TokensOfThePublishedVocabulary) { expect_table("../data/clip_tokenizer", "full", 0); }
TEST(ClipText, TokensOfASmallVocabulary) { expect_table("pipe/tiny_sd/tokenizer", "tiny"); }

std::string yaml(const std::string& more = "", int depth = 2) {
  return fmt::format("{{type: clip_text, tokenizer: {}, weights: {}, width: 32, depth: {}, heads: 4, mlp: 64{}}}",
                     ref_path("pipe/tiny_sd/tokenizer").string(), ref_path("pipe/tiny_sd/text_encoder/model.safetensors").string(), depth,
                     more);
}

double worst(const Tensor& got, const Tensor& wanted) {
  return ((got - wanted).abs().max() / std::max(1.0, wanted.abs().max().item<double>())).item<double>();
}

/// The prompts of a run, from the tokens that were stored of them.
std::vector<Annotation> prompts(const Tensor& ids) {
  const text::ClipTokenizer clip = tokenizer("pipe/tiny_sd/tokenizer");
  std::vector<Annotation> all;
  for (int64_t i = 0; i < ids.size(0); ++i) {
    const Tensor row = ids[i].to(at::kLong).contiguous();
    all.push_back({.caption = clip.decode({row.data_ptr<int64_t>(), row.data_ptr<int64_t>() + row.numel()})});
  }
  return all;
}

class ClipEncoder : public testing::Test {
 protected:
  void SetUp() override { BRUME_NEED_REF("pipe/tiny_sd_components.safetensors"); }
  Tensor stored(const std::string& name) const {
    return SafetensorsFile(ref_path("pipe/tiny_sd_components.safetensors").string()).tensor(name);
  }
};

TEST_F(ClipEncoder, LastLayer) {
  const auto encoder = make<Conditioner>(yaml())->encoder({});
  const Condition c = encoder->encode(prompts(stored("ids")));
  EXPECT_LT(worst(c.context, stored("te_last_hidden_state")), 1e-4);
  EXPECT_FALSE(c.context_mask.defined()) << "Stable Diffusion attends to the padding, too";
  for (const Weight& w : encoder->weights()) EXPECT_FALSE(w.trainable);
}

TEST_F(ClipEncoder, ClipSkipKeepsTheFinalNorm) {
  const auto encoder = make<Conditioner>(yaml(", clip_skip: 1"))->encoder({});
  nn::LayerNorm norm;
  for (const Weight& w : encoder->weights()) {
    if (w.name == "text_model.final_layer_norm.weight") norm.weight = w.tensor;
    if (w.name == "text_model.final_layer_norm.bias") norm.bias = w.tensor;
  }
  const Tensor wanted = norm(stored("te_hidden_1"));
  EXPECT_LT(worst(encoder->encode(prompts(stored("ids"))).context, wanted), 1e-4);
}

TEST_F(ClipEncoder, WeightsThatDoNotFit) {
  const auto said = [](const std::string& more, int depth = 2) {
    return error_of([&] { make<Conditioner>(yaml(more, depth))->encoder({}); });
  };
  EXPECT_NE(said(", length: 64")
                .find("tensor 'text_model.embeddings.position_embedding.weight' has shape [77, 32], the model's has "
                      "[64, 32]"),
            std::string::npos)
      << said(", length: 64");
  EXPECT_NE(said("", 3).find("lacks the tensor 'text_model.encoder.layers.2.layer_norm1.weight' [32]"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
