// The names of diffusers' AutoencoderKL in latent-diffusion's words.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/interop/layouts/diffusers_vae.h"

namespace brume::test {
namespace {

/// What `name` of a VAE of three levels becomes.
std::string renamed(const std::string& name) {
  const at::Tensor t = at::zeros({4});
  return from_diffusers_vae({{"decoder.up_blocks.2.resnets.0.norm1.weight", t}, {name, t}}).back().name;
}

TEST(DiffusersVaeNames, InLatentDiffusionsWords) {
  const std::pair<const char*, const char*> names[] = {
      {"encoder.conv_in.weight", "encoder.conv_in.weight"},
      {"encoder.down_blocks.1.resnets.0.norm1.weight", "encoder.down.1.block.0.norm1.weight"},
      {"encoder.down_blocks.2.resnets.1.conv_shortcut.bias", "encoder.down.2.block.1.nin_shortcut.bias"},
      {"encoder.down_blocks.2.attentions.1.group_norm.bias", "encoder.down.2.attn.1.norm.bias"},
      {"encoder.down_blocks.0.downsamplers.0.conv.weight", "encoder.down.0.downsample.conv.weight"},
      {"encoder.mid_block.resnets.0.conv2.weight", "encoder.mid.block_1.conv2.weight"},
      {"encoder.mid_block.resnets.1.conv2.weight", "encoder.mid.block_2.conv2.weight"},
      {"encoder.mid_block.attentions.0.to_q.weight", "encoder.mid.attn_1.q.weight"},
      {"decoder.mid_block.attentions.0.to_out.0.bias", "decoder.mid.attn_1.proj_out.bias"},
      {"decoder.mid_block.attentions.0.proj_attn.bias", "decoder.mid.attn_1.proj_out.bias"},
      {"decoder.mid_block.attentions.0.query.bias", "decoder.mid.attn_1.q.bias"},
      {"decoder.mid_block.attentions.0.key.bias", "decoder.mid.attn_1.k.bias"},
      {"decoder.mid_block.attentions.0.value.bias", "decoder.mid.attn_1.v.bias"},
      {"decoder.up_blocks.0.resnets.2.conv1.weight", "decoder.up.2.block.2.conv1.weight"},  // counted from the bottleneck there
      {"decoder.up_blocks.0.attentions.1.to_v.weight", "decoder.up.2.attn.1.v.weight"},
      {"decoder.up_blocks.1.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias"},
      {"decoder.conv_norm_out.weight", "decoder.norm_out.weight"},
      {"quant_conv.weight", "quant_conv.weight"},
      {"quantize.embedding.weight", "quantize.embedding.weight"},
      {"encoder.down_blocks.x.resnets", "encoder.down_blocks.x.resnets"},  // no number: not one of diffusers'
      {"key", "key"},
  };
  for (const auto& [theirs, ours] : names) EXPECT_EQ(renamed(theirs), ours);
}

TEST(DiffusersVaeNames, LinearProjectionsBecomeConvolutions) {
  const auto tensors = from_diffusers_vae({{"encoder.mid_block.attentions.0.to_q.weight", at::zeros({4, 4})},
                                           {"encoder.mid_block.attentions.0.to_q.bias", at::zeros({4})},
                                           {"encoder.down_blocks.0.attentions.0.proj_attn.weight", at::zeros({4, 4})},
                                           {"quantize.embedding.weight", at::zeros({8, 4})}});
  EXPECT_EQ(tensors[0].tensor.sizes(), at::IntArrayRef({4, 4, 1, 1}));
  EXPECT_EQ(tensors[1].tensor.sizes(), at::IntArrayRef({4}));
  EXPECT_EQ(tensors[2].tensor.sizes(), at::IntArrayRef({4, 4, 1, 1}));
  EXPECT_EQ(tensors[3].tensor.sizes(), at::IntArrayRef({8, 4}));
}

}  // namespace
}  // namespace brume::test
