// A brume model as one file of latent diffusion (Rombach et al. 2022; CompVis): the inverse of interop/import/ldm.cpp. The U-Net and the
// first stage keep their names below their module's; the YAML next to the file says what tensors do not.
#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/interop/export/export.h"
#include "brume/interop/export/partial.h"
#include "brume/interop/layouts/conditioning.h"
#include "brume/interop/layouts/open_clip.h"
#include "brume/interop/layouts/unet_layout.h"
#include "brume/weights/model_weights.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

struct LdmExport {
  const Contents& model;
  const std::string& source;
  Value network, stage, image;
  Words words;

  [[noreturn]] void refuse(const std::string& what) const { throw ConfigError(fmt::format("{}: {}", source, what)); }
  void only(const Value& part, const char* name, const char* key, const char* wanted) const {
    const auto named = [](const std::string& value) { return value.empty() ? std::string("null") : value; };
    if (const std::string have = text_of(part, key); have != wanted)
      refuse(fmt::format("{}.{} is {}; latent diffusion's is {}", name, key, named(have), named(wanted)));
  }
  bool pixels() const { return text_of(stage, "type") == "identity"; }
  int64_t ratio() const { return pixels() ? 1 : int64_t(1) << (list_of(stage, "multipliers").size() - 1); }

  void check() const {
    only(network, "network", "type", "unet");
    only(network, "network", "resampling", "conv");
    only(network, "network", "groups", "32");
    only(network, "network", "downsample_padding", "around");
    if (number_of(network, "norm_eps") != 1e-5)
      refuse(fmt::format("network.norm_eps is {}; latent diffusion's is 1e-05", text_of(network, "norm_eps")));
    if (!list_of(network, "heads_per_level").empty())
      refuse("network.heads_per_level is given; latent diffusion has one number of heads, or one width");
    if (const std::string up = text_of(network, "decoder_heads"); !up.empty() && up != text_of(network, "heads"))
      refuse(fmt::format("network.decoder_heads is {}; latent diffusion has as many in encoder and decoder, {}", up,
                         text_of(network, "heads")));
    const Value embedding = part_of(network, "noise_embedding");
    for (const auto& [key, wanted] : {std::pair("type", "sinusoidal"),
                                      {"input", "timestep"},
                                      {"scale", "1"},
                                      {"max_period", "10000"},
                                      {"sin_first", "false"},
                                      {"shift", "0"}})
      only(embedding, "network.noise_embedding", key, wanted);
    if (!part_of(network, "transformer").entries.empty()) return;
    only(network, "network", "attention_order", "legacy");
  }

  bool takes_text() const { return text_of(words.conditioner, "type") == "clip_text"; }
  /// Returns true for OpenCLIP's text encoder (SD 2), else OpenAI's (SD 1).
  bool open_clip() const { return text_of(words.conditioner, "activation") == "gelu"; }

  std::string noise(const Value& options) const {
    const Value n = part_of(options, "noise");
    const std::string type = text_of(n, "type"), timesteps = text_of(n, "timesteps");
    if (type == "cosine" && number_of(n, "max_beta") == 0.999)
      return fmt::format("    beta_schedule: cosine\n    timesteps: {}\n    cosine_s: {}\n", timesteps, text_of(n, "s"));
    if (type != "scaled_linear" && !(type == "linear" && !truth_of(n, "rescale")))
      refuse(fmt::format("its noise schedule is '{}'; latent diffusion has linear, scaled_linear and cosine", type));
    return fmt::format("    beta_schedule: {}\n    timesteps: {}\n    linear_start: {}\n    linear_end: {}\n",
                       type == "linear" ? "sqrt_linear" : "linear", timesteps, text_of(n, "beta_start"), text_of(n, "beta_end"));
  }

  /// Returns attention_resolutions as LDM has them: factors of downsampling.
  static std::string factors(const Value& part, int64_t height) {
    std::vector<int64_t> all;
    for (const std::string& h : list_of(part, "attention_resolutions"))
      all.push_back(height / std::max<int64_t>(1, parse_number<int64_t>(h).value_or(0)));
    return fmt::format("[{}]", fmt::join(all, ", "));
  }

  std::string unet(const NamedTensors& tensors) const {
    const auto size = [&](const char* name, int64_t dim) { return find(tensors, name) ? find(tensors, name)->size(dim) : 0; };
    const int64_t height = integer_of(image, "height") / ratio();
    const UnetLayout layout = unet_layout(network);
    const Value transformer = part_of(network, "transformer");
    std::string yaml = fmt::format(
        "    unet_config:\n      target: ldm.modules.diffusionmodules.openaimodel.UNetModel\n      params:\n        image_size: {}\n"
        "        in_channels: {}\n        out_channels: {}\n        model_channels: {}\n        attention_resolutions: {}\n"
        "        num_res_blocks: {}\n        channel_mult: [{}]\n        {}: {}\n        use_scale_shift_norm: {}\n        legacy: False\n",
        height, size("input_blocks.0.0.weight", 1), size("out.2.weight", 0), integer_of(network, "channels"), factors(network, height),
        layout.blocks, fmt::join(list_of(network, "multipliers"), ", "), layout.head_channels > 0 ? "num_head_channels" : "num_heads",
        layout.head_channels > 0 ? layout.head_channels : layout.heads, truth_of(network, "scale_shift") ? "True" : "False");
    const int64_t added = size("label_emb.0.0.weight", 1), classes = size("label_emb.weight", 0);
    if (added > 0 && classes > 0) refuse("its network embeds classes and a vector; that of latent diffusion embeds one of them");
    if (added > 0) yaml += fmt::format("        num_classes: sequential\n        adm_in_channels: {}\n", added);
    if (classes > 0) yaml += fmt::format("        num_classes: {}\n", classes);
    if (transformer.entries.empty()) return yaml;
    if (!list_of(transformer, "only_cross_attention").empty())
      refuse("network.transformer.only_cross_attention is given, which is not written for latent diffusion");
    const std::vector<std::string> depth = list_of(transformer, "depth");
    int64_t context = 0;
    for (const NamedTensor& t : tensors)
      if (t.name.ends_with("attn2.to_k.weight")) context = t.tensor.size(1);
    return yaml + fmt::format(
                      "        use_spatial_transformer: True\n        transformer_depth: {}\n        context_dim: {}\n"
                      "        use_linear_in_transformer: {}\n",
                      depth.size() == 1 ? depth[0] : fmt::format("[{}]", fmt::join(depth, ", ")), context,
                      text_of(transformer, "projection") == "linear" ? "True" : "False");
  }

  std::string first_stage() const {
    if (pixels()) return "    first_stage_config:\n      target: ldm.models.autoencoder.IdentityFirstStage\n";
    const bool vq = text_of(stage, "type") == "vq";
    if (!vq && text_of(stage, "type") != "kl")
      refuse(fmt::format("its autoencoder is '{}'; latent diffusion has kl and vq", text_of(stage, "type")));
    only(stage, "autoencoder", "groups", "32");
    only(stage, "autoencoder", "quant_conv", "true");
    if (number_of(stage, "shift") != 0) refuse("autoencoder.shift is not 0; latent diffusion scales latents only");
    for (const char* each : {"means", "stds"})
      if (!list_of(stage, each).empty()) refuse(fmt::format("autoencoder.{} is given; latent diffusion scales all channels alike", each));
    const std::string latent = text_of(stage, "latent_channels"), channels = text_of(image, "channels");
    const std::string z = integer_of(stage, "inner_channels") > 0 ? text_of(stage, "inner_channels") : latent;
    return fmt::format(
        "    first_stage_config:\n      target: ldm.models.autoencoder.{}\n      params:\n        embed_dim: {}\n{}        ddconfig: "
        "{{double_z: {}, z_channels: {}, resolution: {}, in_channels: {}, out_ch: {}, ch: {}, ch_mult: [{}], num_res_blocks: {}, "
        "attn_resolutions: [{}], dropout: 0.0}}\n",
        vq ? "VQModelInterface" : "AutoencoderKL", latent, vq ? fmt::format("        n_embed: {}\n", text_of(stage, "codes")) : "",
        vq ? "False" : "True", z, text_of(image, "height"), channels, channels, text_of(stage, "channels"),
        fmt::join(list_of(stage, "multipliers"), ", "), text_of(stage, "blocks"), fmt::join(list_of(stage, "attention_resolutions"), ", "));
  }

  /// Returns SGM's section of SDXL: the text encoders and the sizes; other programs know them by the tensors.
  std::string xl_condition() const {
    const std::vector<TextEncoderPlace> encoders = words.encoders();
    only(words.conditioner, "conditioner", "empty", encoders.size() == 2 ? "zeros" : "encoded");
    for (const TextEncoderPlace& e : encoders) {
      const bool last = &e == &encoders.back();
      only(e.options, "conditioner", "activation", last ? "gelu" : "quick_gelu");
      only(e.options, "conditioner", "pad", last ? "0" : "");
      if (integer_of(e.options, "heads") * 64 != integer_of(e.options, "width"))
        refuse(fmt::format("a text encoder of width {} has {} heads; SDXL's are 64 wide", text_of(e.options, "width"),
                           text_of(e.options, "heads")));
    }
    return "    conditioner_config:\n      target: sgm.modules.GeneralConditioner\n";
  }

  std::string condition() const {
    const Value& conditioner = words.conditioner;
    const std::string type = text_of(conditioner, "type");
    if (type == "class_label") {
      const int64_t width = integer_of(conditioner, "context_width"), classes = integer_of(conditioner, "classes");
      if (width == 0) return "    conditioning_key: adm\n    cond_stage_config: __is_unconditional__\n";
      return fmt::format(
          "    conditioning_key: crossattn\n    cond_stage_key: class_label\n    cond_stage_config:\n"
          "      target: ldm.modules.encoders.modules.ClassEmbedder\n      params: {{embed_dim: {}, n_classes: {}, key: class_label}}\n",
          width, classes + (number_of(conditioner, "dropout") > 0 ? 1 : 0));
    }
    if (words.guidance) refuse("its network takes a guidance scale (guidance_scale), which latent diffusion's does not");
    if (words.xl()) return xl_condition();
    if (type == "none") return "    conditioning_key: null\n    cond_stage_config: __is_unconditional__\n";
    if (!words.classes.entries.empty())
      refuse("its conditioner is 'composite', of words and a class; latent diffusion is given one of them");
    if (type != "clip_text")
      refuse(fmt::format("its conditioner is '{}'; latent diffusion is given clip_text, SDXL's, class_label and none", type));
    only(conditioner, "conditioner", "clip_skip", "0");
    only(conditioner, "conditioner", "pad", open_clip() ? "0" : "");
    std::string yaml = words.inpainting ? "    conditioning_key: hybrid\n    finetune_keys: null\n" : "    conditioning_key: crossattn\n";
    yaml += fmt::format("    cond_stage_config:\n      target: ldm.modules.encoders.modules.{}\n",
                        open_clip() ? "FrozenOpenCLIPEmbedder" : "FrozenCLIPEmbedder");
    std::vector<std::string> params;
    if (open_clip()) params = {"freeze: True", "layer: penultimate"};
    const int64_t heads = integer_of(conditioner, "heads");
    if (heads * 64 != integer_of(conditioner, "width")) params.push_back(fmt::format("heads: {}", heads));
    if (!params.empty()) yaml += fmt::format("      params: {{{}}}\n", fmt::join(params, ", "));
    return yaml;
  }
};

/// Returns true for what only the training of a codebook needs.
bool of_training(const std::string& name) {
  return name == "quantize.unused" || name == "quantize.embedding.cluster_size" || name == "quantize.embedding.embed_avg";
}

/// Adds the text encoders of SDXL, OpenCLIP's last; its projection is [width, projection] there.
void add_xl_words(const LdmExport& e, NamedTensors& tensors) {
  const std::vector<TextEncoderPlace> encoders = e.words.encoders();
  for (size_t i = 0; i < encoders.size(); ++i) {
    const NamedTensors words = below(e.model.tensors, encoders[i].prefix);
    const std::string prefix = fmt::format("conditioner.embedders.{}.", i);
    if (i + 1 < encoders.size()) {
      for (const NamedTensor& t : words) tensors.push_back({prefix + "transformer." + t.name, t.tensor});
      continue;
    }
    for (const NamedTensor& t : to_open_clip(words, integer_of(encoders[i].options, "depth"), false))
      tensors.push_back({prefix + "model." + t.name, t.tensor});
    const at::Tensor* projection = find(words, "text_projection.weight");
    if (!projection) e.refuse("its last text encoder has no 'text_projection.weight'");
    tensors.push_back({prefix + "model.text_projection", projection->t().contiguous()});
  }
}

/// Returns the model's tensors under the names of their modules.
NamedTensors ldm_tensors(const LdmExport& e) {
  NamedTensors tensors;
  const auto add = [&](const char* prefix, const NamedTensors& module) {
    for (const NamedTensor& t : module)
      if (!of_training(t.name)) tensors.push_back({prefix + t.name, t.tensor});
  };
  add("model.diffusion_model.", below(e.model.tensors, "network."));
  add("first_stage_model.", below(e.model.tensors, "autoencoder."));
  const NamedTensors words = below(e.model.tensors, e.words.prefix);
  if (e.words.xl())
    add_xl_words(e, tensors);
  else if (!e.takes_text())
    add("cond_stage_model.", words);
  else if (!e.open_clip())
    add("cond_stage_model.transformer.", words);
  else
    add("cond_stage_model.model.", to_open_clip(words, integer_of(e.words.conditioner, "depth")));
  return tensors;
}

std::string ldm_yaml(const LdmExport& e, const Value& options) {
  const Value predicted = part_of(options, "parameterization");
  const std::string parameterization = text_of(predicted, "type");
  if (parameterization != "eps" && parameterization != "x0" && parameterization != "v")
    e.refuse(fmt::format("its parameterization is '{}'; latent diffusion has eps, x0 and v", parameterization));
  if (parameterization == "eps") e.only(predicted, "parameterization", "sign", "noise");
  e.only(options, "model", "variance", "none");
  return fmt::format(
      "model:\n  target: ldm.models.diffusion.ddpm.{}\n  params:\n{}    parameterization: {}\n    image_size: {}\n"
      "    channels: {}\n    scale_factor: {}\n    use_ema: False\n{}{}{}",
      e.words.inpainting ? "LatentInpaintDiffusion" : "LatentDiffusion", e.noise(options), parameterization,
      integer_of(e.image, "height") / e.ratio(),
      text_of(e.stage, "latent_channels").empty() ? text_of(e.image, "channels") : text_of(e.stage, "latent_channels"),
      e.pixels() ? "1.0" : text_of(e.stage, "scale"), e.unet(below(e.model.tensors, "network.")), e.first_stage(), e.condition());
}

}  // namespace

std::vector<std::string> export_ldm(const Contents& model, const std::string& source, const fs::path& file) {
  const fs::path yaml = fs::path(file).replace_extension(".yaml");
  if (!file.has_filename() || yaml == file)
    throw ConfigError(fmt::format(
        "{}: is no name of a weights file with room for a YAML of the same name; expected a name like model.safetensors", file.string()));
  const Files files = files_in(model.tensors);
  Partial::Moves moves{{file.filename().string(), file}, {yaml.filename().string(), yaml}};
  if (!files.empty()) moves.emplace_back("tokenizer", file.parent_path() / "tokenizer");
  Partial out(moves);
  if (!model.metadata.has("model"))
    throw ConfigError(fmt::format("{}: is no diffusion model; latent diffusion's file is made of one", source));
  const Value options = model.metadata.required("model", source);
  const LdmExport e{model,
                    source,
                    part_of(options, "network"),
                    part_of(options, "autoencoder"),
                    part_of(options, "image"),
                    words_of(part_of(options, "conditioner"))};
  e.check();
  out.file(yaml.filename().string(), ldm_yaml(e, options));
  for (const auto& [path, bytes] : files) out.file("tokenizer/" + fs::path(path).filename().string(), bytes);
  out.tensors(file.filename().string(), ldm_tensors(e));
  out.commit();
  std::vector<std::string> notes;
  if (text_of(e.words.conditioner, "type") == "class_label" && number_of(e.words.conditioner, "dropout") > 0)
    notes.emplace_back("that the last class is the null one, for cfg");
  if (const std::string height = text_of(e.image, "height"), width = text_of(e.image, "width"); height != width)
    notes.push_back(fmt::format("that its images are {} wide: the YAML has one size for both sides, {}", counted(width, "pixel"), height));
  return notes;
}

}  // namespace brume
