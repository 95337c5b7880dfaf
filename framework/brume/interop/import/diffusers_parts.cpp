#include "brume/interop/import/diffusers_parts.h"
#include "brume/config/tree.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/interop/import/diffusers_config.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/interop/import/taesd.h"
#include "brume/interop/layouts/diffusers_vae.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// Levels with attention, from the image to the lowest resolution; the decoder must be the mirror image of the encoder.
std::vector<bool> stage_attention(const DiffusersConfig& c, size_t levels) {
  const auto read = [&](const char* key, const std::string& plain, const std::string& attends) {
    std::vector<bool> found;
    for (const std::string& type : c.get<std::vector<std::string>>(key, std::vector<std::string>(levels, plain))) {
      if (type != plain && type != attends) c.refuse(key, fmt::format("{} and {}", plain, attends));
      found.push_back(type == attends);
    }
    if (found.size() != levels) c.refuse(key, fmt::format("a list of {}, one per number of block_out_channels,", levels));
    return found;
  };
  std::vector<bool> down = read("down_block_types", "DownEncoderBlock2D", "AttnDownEncoderBlock2D");
  std::vector<bool> up = read("up_block_types", "UpDecoderBlock2D", "AttnUpDecoderBlock2D");
  std::reverse(up.begin(), up.end());
  if (up != down) c.refuse("up_block_types", "the mirror image of down_block_types");
  return down;
}

/// Returns the options that `kl` and `vq` share.
Value stage_options(const char* type, const DiffusersConfig& c, DiffusersStage& stage, std::optional<int64_t> latent_height) {
  c.only<std::string>("act_fn", "silu");
  const auto channels = c.widths("block_out_channels", {64});
  std::vector<int64_t> multipliers, heights;
  for (const int64_t width : channels) {
    if (width % channels[0] != 0) c.refuse("block_out_channels", "multiples of the first");
    multipliers.push_back(width / channels[0]);
  }
  stage.ratio = int64_t(1) << (channels.size() - 1);
  stage.channels = c.get<int64_t>("in_channels", 3);
  if (c.get<int64_t>("out_channels", 3) != stage.channels) c.refuse("out_channels", fmt::format("{}, as in_channels", stage.channels));
  stage.latent_channels = c.get<int64_t>("latent_channels", c.get<std::string>("_class_name", "") == "VQModel" ? 3 : 4);
  stage.size = latent_height ? *latent_height * stage.ratio : c.get<int64_t>("sample_size", 32);
  const std::vector<bool> attention = stage_attention(c, channels.size());
  for (size_t i = 0; i < attention.size(); ++i)
    if (attention[i]) heights.push_back(stage.size >> i);
  return plugin_of(type, {{"channels", channels[0]},
                          {"multipliers", multipliers},
                          {"blocks", c.get<int64_t>("layers_per_block", 1)},
                          {"attention_resolutions", heights},
                          {"middle_attention", c.get("mid_block_add_attention", true)},
                          {"latent_channels", stage.latent_channels},
                          {"groups", groups_of(c, channels)}});
}

/// Sets the mean and the standard deviation of each channel. The pipelines read them if both are given, and no shift_factor with them.
void set_channel_statistics(const DiffusersConfig& c, DiffusersStage& stage) {
  const auto means = c.get<std::vector<double>>("latents_mean", {}), stds = c.get<std::vector<double>>("latents_std", {});
  if (means.empty() || stds.empty()) return;
  for (const auto& [key, values] : {std::pair("latents_mean", &means), std::pair("latents_std", &stds)})
    if (int64_t(values->size()) != stage.latent_channels) c.refuse(key, fmt::format("a list of {}", stage.latent_channels));
  if (std::any_of(stds.begin(), stds.end(), [](double s) { return !(s > 0); })) c.refuse("latents_std", "positive numbers");
  if (c.get("shift_factor", 0.0) != 0) c.refuse("shift_factor", "null with latents_mean and latents_std");
  stage.options.set("means", value_of(means));
  stage.options.set("stds", value_of(stds));
}

void read_kl(const DiffusersConfig& c, DiffusersStage& stage, std::optional<int64_t> latent_height) {
  const bool quant = c.get("use_quant_conv", true);
  if (c.get("use_post_quant_conv", true) != quant) c.refuse("use_post_quant_conv", fmt::format("{}, as use_quant_conv", quant));
  stage.options = stage_options("kl", c, stage, latent_height);
  stage.options.set("quant_conv", value_of(quant));
  stage.options.set("scale", value_of(c.get("scaling_factor", 0.18215)));
  stage.options.set("shift", value_of(c.get("shift_factor", 0.0)));
  set_channel_statistics(c, stage);
}

void read_vq(const DiffusersConfig& c, DiffusersStage& stage, std::optional<int64_t> latent_height) {
  c.only<std::string>("norm_type", "group");
  for (const char* key : {"lookup_from_codebook", "latents_mean", "latents_std"}) c.absent(key);
  stage.options = stage_options("vq", c, stage, latent_height);
  if (c.has("vq_embed_dim")) c.only<int64_t>("vq_embed_dim", stage.latent_channels);
  stage.options.set("quant_conv", value_of(true));
  stage.options.set("codes", value_of(c.get<int64_t>("num_vq_embeddings", 256)));
  stage.options.set("codebook", value_of("gradient"));
  stage.options.set("scale", value_of(c.get("scaling_factor", 0.18215)));
}

}  // namespace

DiffusersStage read_diffusers_stage(const fs::path& folder, const std::string& variant, std::optional<int64_t> latent_height,
                                    const std::string& type_said) {
  const DiffusersConfig c(folder / "config.json", "an autoencoder of brume", type_said);
  const auto type = c.get<std::string>("_class_name", "AutoencoderKL");
  DiffusersStage stage;
  if (type == "AutoencoderTiny") {
    check_diffusers_tiny(c);
    const NamedTensors tensors = component_tensors(folder, variant);
    if (!is_tiny_pair(tensors)) throw ConfigError(fmt::format("{}: its weights are not those of an AutoencoderTiny", folder.string()));
    const TinyAutoencoder tiny = tiny_of_pair(tensors);
    stage.options = tiny.options("vae", "vae", c.get("scaling_factor", 1.0), c.get("shift_factor", 0.0));
    stage.tensors = tiny.tensors;
    stage.latent_channels = tiny.latent_channels;
    return stage;
  }
  if (type == "AutoencoderKL")
    read_kl(c, stage, latent_height);
  else if (type == "VQModel")
    read_vq(c, stage, latent_height);
  else
    c.refuse("_class_name", "AutoencoderKL, VQModel and AutoencoderTiny");
  stage.tensors = from_diffusers_vae(component_tensors(folder, variant));
  return stage;
}

}  // namespace brume
