// LoRA files merged into a small Stable Diffusion (shared/refs/pipe/tiny_sd), by the names of kohya's trainers and of diffusers.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <map>

#include "brume/core/warnings.h"
#include "brume/interop/lora.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/tiny_sd.h"

namespace brume::test {
namespace {

class Lora : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF("pipe/tiny_sd/unet/config.json");
    pipeline = tiny_sd(tiny_sd_config());
    for (const Weight& w : pipeline->weights()) before[w.name] = w.tensor.clone();
  }
  Tensor normal(std::vector<int64_t> shape) { return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat)); }
  std::string file(const NamedTensors& tensors, const std::map<std::string, std::string>& metadata = {}) {
    write_safetensors(folder.file("lora.safetensors"), tensors, metadata);
    return folder.file("lora.safetensors");
  }
  /// What was added to each weight that changed.
  std::map<std::string, Tensor> merged(const std::string& asked) {
    std::map<std::string, Tensor> changes;
    for (const auto& [name, weight] : merged_loras({asked}, pipeline->weights(), at::kFloat))
      if (!at::equal(weight, before[name])) changes[name] = weight - before[name];
    return changes;
  }
  std::string said(const NamedTensors& tensors) {
    const std::string text = error_of([&] { merged(file(tensors)); });
    for (const Weight& w : pipeline->weights()) EXPECT_TRUE(at::equal(w.tensor, before[w.name])) << w.name << " was changed all the same";
    return without(text, folder);
  }

  const at::NoGradGuard no_grad;
  TempFolder folder;
  at::Generator random = at::detail::createCPUGenerator(1);
  std::unique_ptr<Pipeline> pipeline;
  std::map<std::string, Tensor> before;
};

void expect_near(const Tensor& got, const Tensor& wanted) {
  ASSERT_EQ(got.sizes(), wanted.sizes());
  EXPECT_LE((got - wanted).abs().max().item<double>(), 1e-5);
}

TEST_F(Lora, KohyasNames) {
  const Tensor q[] = {normal({4, 32}), normal({32, 4})}, text[] = {normal({2, 32}), normal({32, 2})};
  const Tensor conv[] = {normal({4, 32, 3, 3}), normal({32, 4, 1, 1})}, into[] = {normal({4, 64, 1, 1}), normal({64, 4, 1, 1})};
  const NamedTensors tensors{{"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", q[0]},
                             {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight", q[1]},
                             {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha", at::full({}, 2.0f)},
                             {"lora_te_text_model_encoder_layers_1_self_attn_v_proj.lora_down.weight", text[0].to(at::kHalf)},
                             {"lora_te_text_model_encoder_layers_1_self_attn_v_proj.lora_up.weight", text[1].to(at::kHalf)},
                             {"lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight", conv[0]},
                             {"lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight", conv[1]},
                             {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", into[0]},
                             {"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", into[1]}};
  const auto changes = merged(file(tensors) + ":0.5");
  ASSERT_EQ(changes.size(), 4u);
  expect_near(changes.at("network.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"), at::matmul(q[1], q[0]) * (0.5 * 2 / 4));
  expect_near(changes.at("conditioner.text_model.encoder.layers.1.self_attn.v_proj.weight"),
              at::matmul(text[1].to(at::kHalf).to(at::kFloat), text[0].to(at::kHalf).to(at::kFloat)) * 0.5);
  expect_near(changes.at("network.input_blocks.1.0.in_layers.2.weight"),
              at::matmul(conv[1].flatten(1), conv[0].flatten(1)).view({32, 32, 3, 3}) * 0.5);
  expect_near(changes.at("network.middle_block.1.proj_in.weight"),
              at::matmul(into[1].flatten(1), into[0].flatten(1)).view({64, 64, 1, 1}) * 0.5);
}

TEST_F(Lora, DiffusersNamesAndOldOnes) {
  const Tensor a = normal({4, 32}), b = normal({32, 4}), product = at::matmul(b, a);
  const std::string block = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.",
                    ours = "network.output_blocks.2.1.transformer_blocks.0.attn2.";
  for (const auto& [down, up] : std::vector<std::pair<std::string, std::string>>{
           {"unet." + block + "to_q.lora_A.weight", "unet." + block + "to_q.lora_B.weight"},
           {"unet." + block + "to_q.lora.down.weight", "unet." + block + "to_q.lora.up.weight"},
           {block + "processor.to_q_lora.down.weight", block + "processor.to_q_lora.up.weight"}}) {
    const auto changes = merged(file({{down, a}, {up, b}}));
    ASSERT_EQ(changes.size(), 1u) << down;
    expect_near(changes.at(ours + "to_q.weight"), product);
  }
  const auto out =
      merged(file({{"unet." + block + "processor.to_out_lora.down.weight", a}, {"unet." + block + "processor.to_out_lora.up.weight", b}}));
  expect_near(out.at(ours + "to_out.0.weight"), product);
  for (const auto& [down, up] :
       std::vector<std::pair<std::string, std::string>>{{"q_proj.lora_linear_layer.down.weight", "q_proj.lora_linear_layer.up.weight"},
                                                        {"to_q_lora.down.weight", "to_q_lora.up.weight"}}) {
    const std::string layer = "text_encoder.text_model.encoder.layers.0.self_attn.";
    expect_near(merged(file({{layer + down, a}, {layer + up, b}})).at("conditioner.text_model.encoder.layers.0.self_attn.q_proj.weight"),
                product);
  }
}

TEST_F(Lora, NamesOfPeftAndComfyUi) {
  const Tensor a = normal({4, 32}), b = normal({32, 4}), product = at::matmul(b, a);
  const std::string unet = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
                    text = "text_model.encoder.layers.0.self_attn.q_proj";
  const std::string ours = "network.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
                    encoder = "conditioner.text_model.encoder.layers.0.self_attn.q_proj.weight";
  for (const auto& [module, weight] :
       std::vector<std::pair<std::string, std::string>>{{"base_model.model." + unet, ours},
                                                        {"base_model.model.unet." + unet, ours},
                                                        {"unet.base_model.model." + unet, ours},
                                                        {"text_encoder.base_model.model." + text, encoder},
                                                        {"base_model.model." + text, encoder},
                                                        {"diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k", ours},
                                                        {"text_encoders.clip_l.transformer." + text, encoder},
                                                        {"lora_te1_text_model_encoder_layers_0_self_attn_q_proj", encoder}})
    for (const auto& [down, up] : std::vector<std::pair<std::string, std::string>>{{".lora_A.weight", ".lora_B.weight"},
                                                                                   {".lora_A.default.weight", ".lora_B.default.weight"},
                                                                                   {".lora_down.weight", ".lora_up.weight"}}) {
      const auto changes = merged(file({{module + down, a}, {module + up, b}}));
      ASSERT_EQ(changes.size(), 1u) << module << down;
      expect_near(changes.at(weight), product);
    }
  const std::string peft = "base_model.model." + unet;
  EXPECT_EQ(said({{peft + ".lora_A.one.weight", a}, {peft + ".lora_B.two.weight", b}}),
            "lora.safetensors: holds 2 adapters (one, two), and one is expected");
}

TEST_F(Lora, AlphasBesideAFileOfPeft) {
  const Tensor a = normal({4, 32}), b = normal({32, 4}), product = at::matmul(b, a);
  const std::string peft = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
                    ours = "network.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
  const NamedTensors tensors{{peft + ".lora_A.weight", a}, {peft + ".lora_B.weight", b}};
  std::string warned;
  const WarningScope scope([&](const std::string& text) { warned += text; });
  expect_near(merged(file(tensors)).at(ours), product);
  EXPECT_NE(warned.find("alpha = rank is taken"), std::string::npos) << warned;
  folder.file("adapter_config.json", R"({"r": 4, "lora_alpha": 8, "alpha_pattern": {"attn1.*": 1}})");
  warned.clear();
  expect_near(merged(file(tensors)).at(ours), product * 2);
  EXPECT_NE(warned.find("alpha_pattern 'attn1.*' has no effect"), std::string::npos) << warned;
}

TEST_F(Lora, AlphaPatternsAreRegularExpressions) {
  const std::string blocks[] = {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
                                "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q"};
  const Tensor a = normal({2, 32}), b = normal({32, 2});
  NamedTensors tensors;
  for (const std::string& block : blocks) {
    tensors.push_back({"unet." + block + ".lora_A.weight", a});
    tensors.push_back({"unet." + block + ".lora_B.weight", b});
  }
  const auto alphas = [&](const std::string& pattern) {
    const auto changes =
        merged(file(tensors, {{"lora_adapter_metadata", R"({"unet.lora_alpha": 2, "unet.alpha_pattern": )" + pattern + "}"}}));
    std::vector<double> all;
    for (const char* name : {"network.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
                             "network.output_blocks.3.1.transformer_blocks.0.attn1.to_q.weight"})
      all.push_back(std::round(20 * (changes.at(name) / at::matmul(b, a)).median().item<double>()) / 10);
    return all;
  };
  using Alphas = std::vector<double>;
  EXPECT_EQ(alphas(R"({"^down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": 6})"), (Alphas{6, 2}));
  EXPECT_EQ(alphas(R"({"up_blocks.*to_q": 8})"), (Alphas{2, 8}));
  EXPECT_EQ(alphas(R"({"to_k": 4, "attn2.to_k": 6})"), (Alphas{4, 2})) << "the first that matches";
  EXPECT_EQ(alphas(R"({"attn2.to_k": 6, "to_k": 4})"), (Alphas{6, 2}));
  EXPECT_EQ(alphas(R"({"to": 4})"), (Alphas{2, 2})) << "to the end of the name";
  EXPECT_EQ(alphas(R"({"o_k": 4})"), (Alphas{2, 2})) << "from the beginning of a level";
  EXPECT_EQ(without(error_of([&] { alphas(R"({"to_(k": 4})"); }), folder),
            "lora.safetensors: its metadata 'lora_adapter_metadata': alpha_pattern has the key 'to_(k', which is no regular expression "
            "that brume reads");
}

TEST_F(Lora, EveryWeightOfDiffusersUnetHasItsPlace) {
  NamedTensors tensors;
  for (const NamedTensor& t : load_tensors(ref_path("pipe/tiny_sd/unet/diffusion_pytorch_model.safetensors").string())) {
    if (t.tensor.dim() < 2) continue;
    const std::string module = "unet." + t.name.substr(0, t.name.size() - 7);
    std::vector<int64_t> down = t.tensor.sizes().vec();
    down[0] = 1;
    tensors.push_back({module + ".lora_A.weight", normal(down)});
    tensors.push_back({module + ".lora_B.weight", normal(t.tensor.dim() == 4 ? std::vector<int64_t>{t.tensor.size(0), 1, 1, 1}
                                                                             : std::vector<int64_t>{t.tensor.size(0), 1})});
  }
  EXPECT_EQ(merged(file(tensors)).size(), tensors.size() / 2);
}

TEST_F(Lora, StrengthNoneChangesNothing) {
  const NamedTensors tensors{{"lora_unet_conv_in.lora_down.weight", normal({4, 4, 3, 3})},
                             {"lora_unet_conv_in.lora_up.weight", normal({32, 4, 1, 1})}};
  EXPECT_TRUE(merged(file(tensors) + ":0").empty());
  EXPECT_EQ(merged(file(tensors) + ":-1").size(), 1u);
  const std::string both = file(tensors);
  for (const auto& [name, weight] : merged_loras({both + ":-1", both}, pipeline->weights(), at::kFloat))
    EXPECT_LE((weight - before[name]).abs().max().item<double>(), 1e-5) << name;
}

TEST_F(Lora, ACoreBetween) {
  const Tensor down = normal({2, 32, 1, 1}), up = normal({32, 3, 1, 1}), mid = normal({3, 2, 3, 3});
  const std::string module = "lora_unet_down_blocks_0_resnets_0_conv2.";
  const auto changes =
      merged(file({{module + "lora_down.weight", down}, {module + "lora_up.weight", up}, {module + "lora_mid.weight", mid}}));
  const Tensor delta = changes.at("network.input_blocks.1.0.out_layers.3.weight");
  double wanted = 0;
  for (int64_t n = 0; n < 3; ++n)
    for (int64_t m = 0; m < 2; ++m)
      wanted += mid[n][m][1][2].item<double>() * up[5][n][0][0].item<double>() * down[m][7][0][0].item<double>();
  EXPECT_NEAR(delta[5][7][1][2].item<double>(), wanted, 1e-5);
}

TEST_F(Lora, PeftsAlphas) {
  const Tensor a = normal({4, 32}), b = normal({32, 4}), product = at::matmul(b, a);
  const std::string module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k";
  const NamedTensors tensors{{"unet." + module + ".lora_A.weight", a}, {"unet." + module + ".lora_B.weight", b}};
  const auto change = [&](const std::string& json) {
    return merged(file(tensors, {{"lora_adapter_metadata", json}})).at("network.input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight");
  };
  expect_near(change(R"({"unet.lora_alpha": 8, "unet.r": 4})"), product * 2);
  expect_near(change(R"({"unet.lora_alpha": 8, "unet.use_rslora": true})"), product * 4);
  expect_near(change(R"({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_k": 1}})"), product * 0.25);
}

TEST_F(Lora, OfRankNoneIsRefused) {
  const std::string q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
  EXPECT_EQ(
      said({{q + ".lora_down.weight", normal({0, 32})}, {q + ".lora_up.weight", normal({32, 0})}, {q + ".alpha", normal({1}) * 0 + 1}}),
      "lora.safetensors: does not fit this model; nothing was changed:\n"
      "lora.safetensors: '" +
          q + "' has rank 0 and alpha 1; its scale, alpha / rank, must be a number");
}

TEST_F(Lora, OfAnotherArchitectureIsRefused) {
  const Tensor a = normal({4, 320}), b = normal({320, 4});
  EXPECT_EQ(said({{"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", a},
                  {"lora_unet_double_blocks_0_img_attn_proj.lora_up.weight", b}}),
            "lora.safetensors: this LoRA is of FLUX, and the model is of SD 1; nothing was changed:\n"
            "lora.safetensors: 'lora_unet_double_blocks_0_img_attn_proj' has no place in this model");
  const std::string q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", fits = "lora_unet_conv_in";
  EXPECT_EQ(said({{q + ".lora_down.weight", a},
                  {q + ".lora_up.weight", b},
                  {fits + ".lora_down.weight", normal({1, 4, 3, 3})},
                  {fits + ".lora_up.weight", normal({32, 1, 1, 1})},
                  {"lora_unet_conv_out.lora_up.weight", normal({32, 1, 1, 1})},
                  {"lora_unet_conv_out.hada", a},
                  {"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", a}}),
            "lora.safetensors: does not fit this model; nothing was changed:\n"
            "lora.safetensors: 'lora_unet_conv_out' has no down matrix\n"
            "lora.safetensors: 'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q' changes a weight [320, 320], and "
            "'network.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight' is [32, 32]\n"
            "lora.safetensors: 'lora_unet_mid_block_attentions_0_proj_in' is incomplete: hada_w1_a without the rest of its parts\n"
            "lora.safetensors: 'lora_unet_conv_out.hada' is no part of a LoRA or of its kin");
  EXPECT_EQ(said({{q + ".lora_down.weight", a}, {q + ".lora_up.weight", normal({32, 5})}}),
            "lora.safetensors: does not fit this model; nothing was changed:\n"
            "lora.safetensors: '" +
                q + "': up [32, 5] and down [4, 320] cannot be multiplied");
  EXPECT_EQ(
      said({{"model.weight", a}}),
      "lora.safetensors: is no LoRA: it holds 1 tensor, none of a LoRA; it is a textual inversion, which sample.prompts.embeddings adds");
  EXPECT_EQ(error_of([&] { merged("none.safetensors:0.5"); }), "lora: there is no file 'none.safetensors'");
  EXPECT_EQ(without(error_of([&] {
                      merged(file({{"a", a}}) + ":half");
                    }),
                    folder),
            "lora: 'half' is no strength in 'lora.safetensors:half'; a number like 0.8 is, after the file and a colon");
}

}  // namespace
}  // namespace brume::test
