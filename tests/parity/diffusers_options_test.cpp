// U-Nets with rare settings of config.json against diffusers (references/diffusers_options.py): the embedded guidance scale of latent
// consistency models, levels that attend to the tokens alone; and the channels' statistics of first stages.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/core/autoencoder.h"
#include "brume/core/network.h"
#include "brume/interop/import/diffusers_parts.h"
#include "brume/interop/import/diffusers_unet.h"
#include "brume/interop/layouts/diffusers_unet.h"
#include "brume/interop/layouts/unet_layout.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/safetensors.h"
#include "support/process.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/waves.h"

namespace brume::test {
namespace {

/// Gives the network the weights of the reference, by diffusers' names. Returns those names.
std::vector<std::string> fill(const DiffusersUnet& unet, const Network& network) {
  NamedTensors named, filled;
  for (const Weight& w : network.weights()) named.push_back({w.name, w.tensor});
  std::vector<std::string> names;
  for (const NamedTensor& t : to_diffusers_unet(named, unet_layout(unet.options()))) {
    int64_t sum = 0;
    for (const char c : t.name) sum += static_cast<unsigned char>(c);
    const double step = 0.2 + double(sum % 101) / 100;
    const Tensor values = waves(t.tensor.sizes().vec(), step);
    const bool norm = t.tensor.dim() == 1 && t.name.ends_with("weight");
    filled.push_back({t.name, t.tensor.dim() > 1 ? values * (2 / std::sqrt(double(t.tensor[0].numel()))) : values * 0.1 + (norm ? 1 : 0)});
    names.push_back(t.name);
  }
  load_weights("the rule", unet.tensors(filled), network.weights());
  return names;
}

TEST(DiffusersOptions, UnetsWithRareSettings) {
  const at::NoGradGuard no_grad;
  const TempFolder folder;
  for (const nlohmann::json& c :
       nlohmann::json::parse(read_text(std::string(BRUME_SOURCE_DIR) + "/tests/parity/references/diffusers_options.json"))) {
    SCOPED_TRACE(c["config"].dump());
    const std::string file = folder.file("config.json");
    std::ofstream(file) << c["config"].dump();
    const DiffusersUnet unet = read_diffusers_unet(file);
    const bool guided = unet.guidance_channels > 0;
    const auto network = make<Network>(dump_yaml(unet.options()),
                                       {.input = {4, 8, 8}, .out_channels = 4, .context_width = unet.context_width, .guidance = guided});
    const std::vector<std::string> names = fill(unet, *network);
    EXPECT_EQ(std::count(names.begin(), names.end(), "time_embedding.cond_proj.weight"), guided ? 1 : 0);
    Condition condition;
    condition.context = waves({2, 7, unet.context_width}, 0.11);
    if (guided) condition.guidance = at::tensor({8.5f, 1.5f});
    const Tensor out =
        network->forward(waves({2, 4, 8, 8}, 0.37), at::tensor({3.f, 500.f}), condition, nullptr).contiguous().to(at::kDouble);
    const double size = c["size"];
    EXPECT_NEAR(out.sum().item<double>(), c["sum"].get<double>(), 1e-5 * size);
    EXPECT_NEAR(out.abs().sum().item<double>(), size, 1e-5 * size);
    for (int64_t j = 0; j < 8; ++j) EXPECT_NEAR(out[j / 4][0][0][j % 4].item<double>(), c["first"][size_t(j)].get<double>(), 2e-5);
  }
}

TEST(DiffusersOptions, SettingsOfTheUnetThatCannotBe) {
  const TempFolder folder;
  const auto refusal = [&](const std::string& json) {
    const std::string file = folder.file("config.json");
    std::ofstream(file) << json;
    const std::string text = error_of([&] { read_diffusers_unet(file); });
    return text.substr(text.find(": ") + 2);
  };
  EXPECT_EQ(refusal(R"({"time_cond_proj_dim": 7})"),
            "time_cond_proj_dim is 7; the unet of brume supports null, and even numbers from 4 to 65536 only");
  EXPECT_EQ(refusal(R"({"only_cross_attention": [true]})"), "only_cross_attention is [true]; the unet of brume supports a list of 4 only");
  EXPECT_EQ(refusal(R"({"only_cross_attention": "all"})"), "only_cross_attention is \"all\", which is not what diffusers writes there");
}

class ChannelStatistics : public testing::Test {
 protected:
  /// Reads a first stage with these keys in its config.json, and no weights.
  Value options(const std::string& keys) const {
    std::ofstream(folder_.file("config.json")) << fmt::format(
        "{{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [8], \"down_block_types\": [\"DownEncoderBlock2D\"], "
        "\"up_block_types\": [\"UpDecoderBlock2D\"], \"latent_channels\": 2, \"norm_num_groups\": 4, \"sample_size\": 8{}}}",
        keys);
    write_safetensors(folder_.file("diffusion_pytorch_model.safetensors"), {{"decoder.up_blocks.0.resnets.0.norm1.weight", waves({8}, 1)}},
                      {});
    return read_diffusers_stage(folder_.path(), "", {}).options;
  }
  TempFolder folder_;
};

// StableDiffusionXLPipeline: z = latents latents_std / scaling_factor + latents_mean.
TEST_F(ChannelStatistics, LatentsAreShiftedAndScaledByChannel) {
  const std::string with = R"(, "scaling_factor": 0.5, "latents_mean": [1.0, -2.0], "latents_std": [3.0, 4.0])";
  const Autoencoder::Context context{.image = {3, 8, 8}};
  const auto plain = make<Autoencoder>(dump_yaml(options(R"(, "scaling_factor": 1.0)")), context),
             ours = make<Autoencoder>(dump_yaml(options(with)), context);
  const at::NoGradGuard no_grad;
  const Tensor image = waves({2, 3, 8, 8}, 0.3), means = at::tensor({1.f, -2.f}).view({1, 2, 1, 1}),
               stds = at::tensor({3.f, 4.f}).view({1, 2, 1, 1});
  const Tensor z = plain->encode(image), latents = ours->encode(image);
  EXPECT_LE((latents - (z - means) / stds * 0.5).abs().max().item<double>(), 1e-6);
  EXPECT_GT((latents - z).abs().max().item<double>(), 0.1);
  EXPECT_LE((ours->decode(latents) - plain->decode(z)).abs().max().item<double>(), 1e-5);
}

TEST_F(ChannelStatistics, WhatTheyCannotBe) {
  const auto refusal = [&](const std::string& keys) {
    const std::string text = error_of([&] { options(keys); });
    return text.substr(text.find(": ") + 2);
  };
  EXPECT_EQ(refusal(R"(, "_class_name": "VQModel", "latents_mean": [1.0, 2.0])"),
            "latents_mean is [1.0,2.0]; an autoencoder of brume supports null only");
  EXPECT_EQ(refusal(R"(, "latents_mean": [1.0], "latents_std": [3.0, 4.0])"),
            "latents_mean is [1.0]; an autoencoder of brume supports a list of 2 only");
  EXPECT_EQ(refusal(R"(, "latents_mean": [1.0, 2.0], "latents_std": [3.0, 0.0])"),
            "latents_std is [3.0,0.0]; an autoencoder of brume supports positive numbers only");
  EXPECT_EQ(refusal(R"(, "latents_mean": [1.0, 2.0], "latents_std": [3.0, 1.0], "shift_factor": 0.5)"),
            "shift_factor is 0.5; an autoencoder of brume supports null with latents_mean and latents_std only");
}

}  // namespace
}  // namespace brume::test
