// write_model NAME PATH: a model of full size with random weights, for measuring how fast and in how much memory such models open and run:
//
//   sd15        FILE.safetensors as CompVis lays it out (float16, 2.1 GB)
//   sdxl        FILE.safetensors as Stability lays it out (float16, 6.9 GB)
//   sd3-medium  DIRECTORY with sd3_medium.safetensors, as Stability lays it out, and the text encoders and the first stage as diffusers
//               does, T5-XXL among them (float16 and bfloat16, 16 GB); tokenizers are left to whoever has them
//
// Names and shapes are those of brume's own networks, whose memory is never touched; each tensor is written as it is drawn.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <filesystem>
#include <iostream>

#include "brume/config/errors.h"
#include "brume/interop/layouts/diffusers_vae.h"
#include "brume/interop/layouts/open_clip.h"
#include "brume/nn/blocks/first_stage.h"
#include "brume/nn/blocks/t5_encoder.h"
#include "brume/nn/blocks/text_encoder.h"
#include "large/growing_file.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const nn::TextEncoderOptions clip_l{49408, 77, 768, 12, 12, 3072, true}, clip_g{49408, 77, 1280, 32, 20, 5120};

NamedTensors shapes_of(const std::vector<Weight>& weights) {
  NamedTensors shapes;
  for (const Weight& w : weights) shapes.push_back({w.name, w.tensor});
  return shapes;
}

NamedTensors text_encoder(const nn::TextEncoderOptions& options, bool projection) {
  const nn::Builder build(0);
  const nn::TextEncoder encoder(build["text_model"], options);
  if (projection) build.linear("text_projection", options.width, options.width, false);
  return shapes_of(build.weights());
}

NamedTensors autoencoder(int64_t latent_channels, bool quant_conv) {
  nn::FirstStageOptions options;
  options.channels = 128, options.multipliers = {1, 2, 4, 4};
  options.latent_channels = latent_channels, options.quant_conv = quant_conv;
  const nn::Builder build(0);
  const nn::FirstStageNetwork network(build, options, {3, 512, 512}, 2 * latent_channels);
  return shapes_of(build.weights());
}

void write_sd15(const std::string& path) {
  GrowingFile file(path, at::kHalf);
  file.add("model.diffusion_model.",
           make<Network>("{type: unet, channels: 320, multipliers: [1, 2, 4, 4], attention_resolutions: [64, 32, 16], heads: 8, "
                         "scale_shift: false, transformer: {depth: [1]}}",
                         Network::Context{.input = {4, 64, 64}, .out_channels = 4, .context_width = clip_l.width})
               ->weights());
  file.add("cond_stage_model.transformer.", text_encoder(clip_l, false));
  file.add("first_stage_model.", autoencoder(4, true));
}

/// Returns OpenCLIP's bigG under its own names.
NamedTensors open_clip_g() {
  NamedTensors shapes = to_open_clip(text_encoder(clip_g, false), clip_g.depth, false);
  shapes.push_back({"text_projection", at::empty({clip_g.width, clip_g.width})});
  shapes.push_back({"logit_scale", at::empty({})});
  return shapes;
}

void write_sdxl(const std::string& path) {
  GrowingFile file(path, at::kHalf);
  file.add("model.diffusion_model.",
           make<Network>("{type: unet, channels: 320, multipliers: [1, 2, 4], attention_resolutions: [64, 32], head_channels: 64, "
                         "scale_shift: false, size_channels: 256, transformer: {depth: [1, 2, 10], projection: linear}}",
                         Network::Context{.input = {4, 128, 128},
                                          .out_channels = 4,
                                          .context_width = clip_l.width + clip_g.width,
                                          .vector_width = clip_g.width,
                                          .size_ids = 6})
               ->weights());
  file.add("conditioner.embedders.0.transformer.", text_encoder(clip_l, false));
  file.add("conditioner.embedders.1.model.", open_clip_g());
  file.add("first_stage_model.", autoencoder(4, true));
}

void write_text(const std::filesystem::path& path, const std::string& text) { std::ofstream(path) << text; }

void write_clip(const std::filesystem::path& folder, const nn::TextEncoderOptions& o) {
  std::filesystem::create_directories(folder);
  write_text(folder / "config.json",
             fmt::format(R"({{"hidden_act": "{}", "hidden_size": {}, "intermediate_size": {}, "num_attention_heads": {},
 "num_hidden_layers": {}, "projection_dim": {}, "vocab_size": {}}})",
                         o.quick_gelu ? "quick_gelu" : "gelu", o.width, o.mlp, o.heads, o.depth, o.width, o.rows));
  GrowingFile((folder / "model.safetensors").string(), at::kHalf).add("", text_encoder(o, true));
}

void write_t5_xxl(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_text(folder / "config.json", R"({"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24,
 "vocab_size": 32128, "feed_forward_proj": "gated-gelu"})");
  const nn::Builder build(0);
  const nn::T5Encoder encoder(build, {});
  GrowingFile((folder / "model.safetensors").string(), at::kBFloat16).add("", build.weights());
}

void write_sd3_stage(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_text(folder / "config.json", R"({"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "act_fn": "silu",
 "in_channels": 3, "out_channels": 3, "latent_channels": 16, "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 1024,
 "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": false, "use_post_quant_conv": false,
 "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
 "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]})");
  GrowingFile((folder / "diffusion_pytorch_model.safetensors").string(), at::kHalf).add("", to_diffusers_vae(autoencoder(16, false)));
}

void write_sd3(const std::filesystem::path& folder) {
  write_clip(folder / "text_encoder", clip_l);
  write_clip(folder / "text_encoder_2", clip_g);
  write_t5_xxl(folder / "text_encoder_3");
  write_sd3_stage(folder / "vae");
  GrowingFile((folder / "sd3_medium.safetensors").string(), at::kHalf)
      .add("model.diffusion_model.",
           make<Network>("{type: mmdit, width: 1536, depth: 24, heads: 24, position_size: 192}",
                         Network::Context{.input = {16, 128, 128}, .out_channels = 16, .context_width = 4096, .vector_width = 2048})
               ->weights());
}

}  // namespace
}  // namespace brume::test

int main(int count, char** arguments) try {
  const std::string name = count == 3 ? arguments[1] : "";
  const at::NoGradGuard no_grad;
  const brume::nn::SkipInit shapes_only(true);
  if (name == "sd15")
    brume::test::write_sd15(arguments[2]);
  else if (name == "sdxl")
    brume::test::write_sdxl(arguments[2]);
  else if (name == "sd3-medium")
    brume::test::write_sd3(arguments[2]);
  else
    return std::cerr << "usage: write_model sd15|sdxl|sd3-medium PATH\n", 1;
} catch (const brume::ConfigError& error) {
  std::cerr << "error: " << error.what() << "\n";
  return 2;
}
