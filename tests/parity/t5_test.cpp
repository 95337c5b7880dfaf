// Parity of T5's encoder and its tokenizer with transformers and sentencepiece (shared/refs2/t5).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/core/conditioner.h"
#include "brume/files/mapped_file.h"
#include "brume/interop/import/t5.h"
#include "brume/nn/blocks/t5_encoder.h"
#include "brume/text/sentencepiece.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/expect_close.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/waves.h"

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

// Of both kinds of feed-forward layers (references/t5_relu.py).
TEST(T5, EncodesAsComfyUI) {
  const at::NoGradGuard no_grad;
  const auto cases = nlohmann::json::parse(read_text(std::string(BRUME_SOURCE_DIR) + "/tests/parity/references/t5_relu.json"));
  for (const auto& [name, wanted] : cases.items()) {
    SCOPED_TRACE(name);
    const nn::Builder build(1);
    const nn::T5Encoder encoder(build, {.rows = 50,
                                        .width = 32,
                                        .depth = 2,
                                        .heads = 3,
                                        .head = 8,
                                        .mlp = 40,
                                        .feed_forward = name == "relu" ? nn::T5FeedForward::relu : nn::T5FeedForward::gated_gelu});
    for (const Weight& w : build.weights()) {
      int64_t sum = 0;
      for (const char c : w.name) sum += static_cast<unsigned char>(c);
      const Tensor values = waves(w.tensor.sizes().vec(), 0.2 + double(sum % 101) / 100);
      Tensor(w.tensor).copy_(w.tensor.dim() > 1 ? values * (2 / std::sqrt(double(w.tensor[0].numel()))) : values * 0.1 + 1);
    }
    const Tensor ids = (at::arange(42) * 17 % 49).view({2, 21}), mask = at::ones({2, 21});
    mask[1].narrow(0, 9, 12).zero_();
    const Tensor out = encoder(ids, mask, at::kFloat).to(at::kDouble);
    const double size = wanted["size"];
    EXPECT_NEAR(out.sum().item<double>(), wanted["sum"].get<double>(), 1e-5 * size);
    EXPECT_NEAR(out.abs().sum().item<double>(), size, 1e-5 * size);
    for (int64_t j = 0; j < 8; ++j) EXPECT_NEAR(out[j / 4][j % 4][0].item<double>(), wanted["first"][size_t(j)].get<double>(), 2e-5);
  }
}

TEST(T5, ConfigSaysItsFeedForwardLayers) {
  BRUME_NEED_REF(folder + "tiny_t5_gated_io.safetensors");
  const TempFolder here;
  const auto read = [&](const std::string& change) {
    nlohmann::json config = nlohmann::json::parse(read_text(ref_path(folder + "tiny_t5_gated/config.json").string()));
    config.merge_patch(nlohmann::json::parse(change));
    std::ofstream(here.file("config.json")) << config.dump();
    std::filesystem::copy_file(ref_path(folder + "tiny_t5_gated/model.safetensors"), here.file("model.safetensors"),
                               std::filesystem::copy_options::overwrite_existing);
    return dump_yaml(read_t5(here.path(), ref_path(folder + "spiece.model").parent_path(), "", {}).options);
  };
  EXPECT_EQ(read("{}").find("feed_forward"), std::string::npos);
  EXPECT_NE(read(R"({"feed_forward_proj": "relu"})").find("feed_forward: relu"), std::string::npos);
  EXPECT_NE(read(R"({"feed_forward_proj": null})").find("feed_forward: relu"), std::string::npos) << "as in the first files";
  const auto refusal = [&](const std::string& change) {
    const std::string text = error_of([&] { read(change); });
    return text.substr(text.find(": ") + 2);
  };
  EXPECT_EQ(refusal(R"({"feed_forward_proj": "gated-silu"})"),
            "feed_forward_proj is \"gated-silu\"; the t5 of brume supports \"gated-gelu\" (T5 1.1) and \"relu\" (T5) only");
  EXPECT_EQ(refusal(R"({"model_type": "umt5"})"), "model_type is \"umt5\"; the t5 of brume supports \"t5\" and \"mt5\" only");
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
