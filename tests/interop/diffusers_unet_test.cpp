// The reading of diffusers' config.json: the options it comes to, the names of blocks, and what is refused.
#include "brume/interop/import/diffusers_unet.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "brume/config/errors.h"
#include "support/flow.h"

namespace brume {
namespace {

class DiffusersConfig : public testing::Test {
 protected:
  std::filesystem::path file = std::filesystem::temp_directory_path() / ("diffusers_unet_" + std::to_string(getpid()) + ".json");
  ~DiffusersConfig() override { std::filesystem::remove(file); }
  DiffusersUnet read(const std::string& json) const {
    std::ofstream(file) << json;
    return read_diffusers_unet(file);
  }
  std::string refusal(const std::string& json) const {
    try {
      static_cast<void>(read(json).options());
    } catch (const ConfigError& e) {
      const std::string said = e.what();
      return said.starts_with(file.string() + ": ") ? said.substr(file.string().size() + 2) : said;
    }
    return "no error";
  }
};

const std::string blocks =
    R"("down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
  "block_out_channels": [64, 128], )";

TEST_F(DiffusersConfig, StableDiffusion2sHeadsAreOfOneWidth) {
  EXPECT_EQ(test::flow(read("{" + blocks +
                            R"("attention_head_dim": [2, 4], "cross_attention_dim": 48, "use_linear_projection": true, "sample_size": 32,
                 "transformer_layers_per_block": [1, 2]})")
                           .options()),
            "{type: unet, channels: 64, multipliers: [1, 2], blocks: 2, attention_resolutions: [32], middle_attention: true, "
            "head_channels: 32, scale_shift: false, groups: 32, dropout: 0, attention_order: new, transformer: {depth: [1, 2], projection: "
            "linear}}");
}

TEST_F(DiffusersConfig, JoinsPlainAttention) {
  const DiffusersUnet u = read(R"({"_class_name": "UNet2DModel", "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "block_out_channels": [32, 64], "layers_per_block": 1, "sample_size": 16})");
  EXPECT_EQ(test::flow(u.options()),
            "{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], middle_attention: true, heads: 8, "
            "scale_shift: false, groups: 32, dropout: 0, attention_order: new}");
  const auto t = [](double value) { return at::full({64, 64}, value, at::kFloat); };
  const NamedTensors got = u.tensors({{"up_blocks.0.attentions.1.to_v.weight", t(3)},
                                      {"up_blocks.0.attentions.1.to_q.weight", t(1)},
                                      {"up_blocks.0.attentions.1.to_k.weight", t(2)},
                                      {"up_blocks.0.attentions.1.to_out.0.weight", t(4)},
                                      {"up_blocks.0.upsamplers.0.conv.bias", t(5)},
                                      {"class_embedding.weight", t(6)}});
  ASSERT_EQ(got.size(), 4u);
  EXPECT_EQ(got[0].name, "output_blocks.1.1.qkv.weight");
  EXPECT_EQ(got[0].tensor.sizes(), at::IntArrayRef({192, 64, 1}));
  for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(got[0].tensor[64 * i][0][0].item<double>(), double(i + 1));
  EXPECT_EQ(got[1].name, "output_blocks.1.1.proj_out.weight");
  EXPECT_EQ(got[1].tensor.sizes(), at::IntArrayRef({64, 64, 1}));
  EXPECT_EQ(got[2].name, "output_blocks.1.2.conv.bias");
  EXPECT_EQ(got[3].name, "label_emb.weight");
}

// The blocks of published consistency models: the resolution changes by residual blocks, with attention at some levels.
const std::string residual_blocks = R"("_class_name": "UNet2DModel", "block_out_channels": [32, 64, 64], "layers_per_block": 1,
  "sample_size": 16, "attention_head_dim": 16, "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32,
  "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
  "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"])";

TEST_F(DiffusersConfig, ResidualResampling) {
  const DiffusersUnet u = read("{" + residual_blocks + R"(, "downsample_type": "resnet", "upsample_type": "resnet"})");
  EXPECT_EQ(test::flow(u.options()),
            "{type: unet, channels: 32, multipliers: [1, 2, 2], blocks: 1, attention_resolutions: [8, 4], middle_attention: true, "
            "heads: 4, scale_shift: true, groups: 32, dropout: 0, attention_order: new, resampling: residual}");
  const auto name = [&](const std::string& theirs) { return u.tensors({{theirs, at::zeros({1})}})[0].name; };
  EXPECT_EQ(name("down_blocks.0.downsamplers.0.norm1.weight"), "input_blocks.2.0.in_layers.0.weight");
  EXPECT_EQ(name("down_blocks.1.downsamplers.0.conv2.bias"), "input_blocks.4.0.out_layers.3.bias");
  EXPECT_EQ(name("down_blocks.1.downsamplers.0.time_emb_proj.weight"), "input_blocks.4.0.emb_layers.1.weight");
  EXPECT_EQ(name("up_blocks.0.upsamplers.0.conv1.weight"), "output_blocks.1.2.in_layers.2.weight");
  EXPECT_EQ(refusal("{" + residual_blocks + R"(, "upsample_type": "resnet"})"),
            "up_block_types is [\"AttnUpBlock2D\",\"AttnUpBlock2D\",\"ResnetUpsampleBlock2D\"]; the unet of brume supports the mirror "
            "image of down_block_types only");
  EXPECT_EQ(refusal("{" + residual_blocks + "}"),
            "down_block_types is [\"ResnetDownsampleBlock2D\",\"AttnDownBlock2D\",\"AttnDownBlock2D\"]; the unet of brume supports "
            "the same way of changing the resolution (a convolution, or residual blocks) for all levels only");
  EXPECT_EQ(refusal("{" + residual_blocks + R"(, "downsample_type": "average"})"),
            "downsample_type is \"average\"; the unet of brume supports \"conv\" and \"resnet\" only");
  EXPECT_EQ(refusal("{" + blocks + R"("downsample_type": "resnet"})"),
            "downsample_type is \"resnet\"; the unet of brume supports \"conv\" only");
}

TEST_F(DiffusersConfig, SaysWhatItCannotBe) {
  EXPECT_EQ(refusal("{" + blocks + R"("act_fn": "gelu"})"), "act_fn is \"gelu\"; the unet of brume supports \"silu\" only");
  EXPECT_EQ(refusal("{" + blocks + R"("addition_embed_type": "image"})"),
            "addition_embed_type is \"image\"; the unet of brume supports null, and \"text_time\", a pooled vector and sizes (SDXL) only");
  EXPECT_EQ(refusal("{" + blocks + R"("addition_embed_type": "text_time"})"),
            "addition_time_embed_dim is missing; the unet of brume supports an even number only");
  EXPECT_EQ(refusal(R"({"block_out_channels": [32], "down_block_types": ["KDownBlock2D"]})"),
            "down_block_types is [\"KDownBlock2D\"]; the unet of brume supports DownBlock2D, CrossAttnDownBlock2D and "
            "ResnetDownsampleBlock2D only");
  EXPECT_EQ(refusal("{" + blocks + R"("norm_num_groups": "many"})"),
            "norm_num_groups is \"many\", which is not what diffusers writes there");
  EXPECT_NE(test::flow(read("{" + blocks + R"("attention_head_dim": [2, 8]})").options()).find("heads_per_level: [2, 8]"),
            std::string::npos);
  EXPECT_EQ(refusal("{" + blocks + R"("attention_head_dim": [3, 5]})"),
            "attention_head_dim is [3,5]; the unet of brume supports numbers that divide the channels of their levels only");
  EXPECT_EQ(refusal(R"({"down_block_types": ["DownBlock2D"]})"),
            "down_block_types is [\"DownBlock2D\"]; the unet of brume supports a list of 4, one per number of block_out_channels, only");
  EXPECT_EQ(refusal("{" + blocks + R"("attention_type": "gated"})"),
            "attention_type is \"gated\"; the unet of brume supports \"default\" only");
  EXPECT_EQ(refusal("{" + blocks + R"("encoder_hid_dim": 20})"), "encoder_hid_dim is 20; the unet of brume supports null only");
  EXPECT_EQ(refusal("[1]"), "is no JSON object");
  EXPECT_TRUE(refusal("[1").starts_with("is no JSON: ")) << refusal("[1");
  try {
    read("{" + blocks + R"("sample_size": 32})").tensors({{"add_embedding.linear_1.weight", at::zeros({1})}});
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "no place is known for add_embedding.linear_1.weight");
  }
}

}  // namespace
}  // namespace brume
