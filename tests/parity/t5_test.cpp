// Parity of T5's encoder and its tokenizer with transformers and sentencepiece (shared/refs2/t5).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/core/conditioner.h"
#include "brume/files/mapped_file.h"
#include "brume/nn/blocks/t5_encoder.h"
#include "brume/text/sentencepiece.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/expect_close.h"
#include "support/refs.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const std::string folder = "../refs2/t5/";

NamedTensors stored() { return load_tensors(ref_path(folder + "tiny_t5_gated_io.safetensors").string()); }

TEST(T5, TokenizesAsSentencepiece) {
  BRUME_NEED_REF(folder + "spiece_table.json");
  if (!text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing();
  const auto file = MappedFile::open(ref_path(folder + "spiece.model").string());
  const text::SentencePiece tokenizer(file->bytes(), "spiece.model");
  EXPECT_EQ(tokenizer.padding(), 0);
  EXPECT_EQ(tokenizer.end(), 1);
  for (const auto& row : ref_json(folder + "spiece_table.json")["table"]) {
    std::vector<int64_t> ids = tokenizer.encode(row["text"].get<std::string>());
    ids.push_back(tokenizer.end());
    EXPECT_EQ(ids, row["ids"].get<std::vector<int64_t>>()) << row["text"];
  }
}

TEST(T5, EncodesAsTransformers) {
  BRUME_NEED_REF(folder + "tiny_t5_gated_io.safetensors");
  const at::NoGradGuard no_grad;
  const nn::Builder build(1);
  const nn::T5Encoder encoder(build, {.rows = 320, .width = 64, .depth = 2, .heads = 4, .head = 16, .mlp = 96});
  load_weights(ref_path(folder + "tiny_t5_gated/model.safetensors").string(), build.weights());
  const NamedTensors io = stored();
  const auto ids = [&](const char* name) { return find(io, name)->to(at::kLong); };
  expect_close(encoder(ids("ids"), {}, at::kFloat), *find(io, "out_nomask"), 1e-5, "T5 without a mask");
  expect_close(encoder(ids("ids"), *find(io, "attention_mask"), at::kFloat), *find(io, "out_masked"), 1e-5, "T5 with a mask");
  expect_close(encoder(ids("long_ids"), {}, at::kFloat), *find(io, "out_long"), 1e-5, "T5 with 170 tokens");
}

TEST(T5, EncodesPrompts) {
  BRUME_NEED_REF(folder + "tiny_t5_gated_io.safetensors");
  if (!text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing();
  const NamedTensors io = stored();
  const auto& table = ref_json(folder + "spiece_table.json")["table"];
  std::vector<Annotation> prompts;
  for (const size_t row : {0, 6}) prompts.push_back({.caption = table[row]["text"].get<std::string>()});
  for (const bool mask : {false, true}) {
    const auto encoder = make<Conditioner>(fmt::format("{{type: t5, tokenizer: {}, weights: {}, length: 24, width: 64, depth: 2, heads: 4, "
                                                       "head_width: 16, mlp: 96, rows: 320, mask: {}}}",
                                                       ref_path(folder + "spiece.model").string(),
                                                       ref_path(folder + "tiny_t5_gated/model.safetensors").string(), mask))
                             ->encoder({});
    const Condition c = encoder->encode(prompts);
    const Tensor rows = at::tensor({0, 2}, at::kLong);  // the other is cut
    expect_close(c.context, find(io, mask ? "out_masked" : "out_nomask")->index_select(0, rows), 1e-5, "prompts");
    ASSERT_EQ(c.context_mask.defined(), mask);
    if (!mask) continue;
    EXPECT_TRUE(at::equal(c.context_mask, find(io, "attention_mask")->index_select(0, rows).to(at::kFloat)));
  }
}

}  // namespace
}  // namespace brume::test
