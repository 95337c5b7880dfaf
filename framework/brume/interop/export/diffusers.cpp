// A brume model as a directory of diffusers: the configurations have the keys of published models, the tensors diffusers' names.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/yaml.h"
#include "brume/files/json.h"
#include "brume/interop/export/diffusers_scheduler.h"
#include "brume/interop/export/diffusers_text.h"
#include "brume/interop/export/diffusers_transformer.h"
#include "brume/interop/export/export.h"
#include "brume/interop/export/partial.h"
#include "brume/interop/layouts/conditioning.h"
#include "brume/interop/layouts/diffusers_unet.h"
#include "brume/interop/layouts/diffusers_vae.h"
#include "brume/interop/layouts/sections.h"
#include "brume/interop/layouts/unet_layout.h"
#include "brume/weights/model_weights.h"

namespace brume {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* version = "0.31.0";  ///< of diffusers, whose keys these are

std::vector<int64_t> widths_of(const Value& part) {
  std::vector<int64_t> widths;
  for (const std::string& m : list_of(part, "multipliers"))
    widths.push_back(std::llround(double(integer_of(part, "channels")) * parse_number<double>(m).value_or(0)));
  return widths;
}

/// Returns true if each level attends.
std::vector<bool> attention_of(const Value& part, int64_t height) {
  const std::vector<std::string> heights = list_of(part, "attention_resolutions");
  std::vector<bool> attends;
  for (size_t i = 0; i < list_of(part, "multipliers").size(); ++i)
    attends.push_back(std::find(heights.begin(), heights.end(), std::to_string(height >> i)) != heights.end());
  return attends;
}

/// Returns "DownBlock2D" and its like for each level; the decoder is the mirror image.
json block_types(const std::vector<bool>& attends, const std::string& plain, const std::string& with, bool up) {
  json types = json::array();
  for (const bool a : attends) types.push_back(a ? with : plain);
  if (up) std::reverse(types.begin(), types.end());
  return types;
}

bool all_equal(const std::vector<int64_t>& all) {
  return std::all_of(all.begin(), all.end(), [&](int64_t v) { return v == all.front(); });
}

json one_or_each(const std::vector<int64_t>& all) { return all_equal(all) ? json(all.front()) : json(all); }

/// Returns the number of heads of each level.
std::vector<int64_t> heads_of(const Value& network, const UnetLayout& layout) {
  std::vector<int64_t> heads;
  for (const std::string& h : list_of(network, "heads_per_level")) heads.push_back(parse_number<int64_t>(h).value_or(1));
  if (heads.empty())
    for (const int64_t width : widths_of(network)) heads.push_back(std::max<int64_t>(1, layout.heads_of(width)));
  return heads;
}

/// Sets the keys of attention without words. UNet2DModel has one width of heads for all levels that attend.
void set_plain_attention(json& c, const Value& network, const UnetLayout& layout, const std::vector<bool>& attends) {
  const std::vector<int64_t> widths = widths_of(network), heads = heads_of(network, layout);
  std::vector<int64_t> head_widths;
  for (size_t i = 0; i < widths.size(); ++i)
    if (attends[i] || (layout.middle_attention && i + 1 == widths.size())) head_widths.push_back(widths[i] / heads[i]);
  if (head_widths.empty()) head_widths.push_back(widths.back());
  const bool one_head = layout.head_channels == 0 && layout.heads == 1 && list_of(network, "heads_per_level").empty();
  if (!one_head && !all_equal(head_widths))
    throw ConfigError(fmt::format("network.heads: the levels' heads are {} wide; diffusers' U-Net without words has heads of one width",
                                  fmt::join(head_widths, ", ")));
  c["add_attention"] = layout.middle_attention;
  c["attention_head_dim"] = one_head ? json() : json(head_widths.front());
  c["mid_block_type"] = "UNetMidBlock2D";
  if (truth_of(network, "scale_shift")) c["attn_norm_num_groups"] = integer_of(network, "groups");  // else its middle attention has no norm
}

/// Sets the keys of spatial transformers.
void set_transformers(json& c, const Value& network, const UnetLayout& layout, const NamedTensors& tensors) {
  const Value transformer = part_of(network, "transformer");
  int64_t context = 0;
  for (const NamedTensor& t : tensors)
    if (t.name.ends_with("attn2.to_k.weight")) context = t.tensor.size(1);
  const std::vector<int64_t> heads = heads_of(network, layout);
  std::vector<int64_t> depth;
  for (const std::string& d : list_of(transformer, "depth")) depth.push_back(parse_number<int64_t>(d).value_or(0));
  c["attention_head_dim"] = one_or_each(heads);  // the number of heads, by diffusers' own account a misnomer
  c["num_attention_heads"] = nullptr;
  c["cross_attention_dim"] = context;
  c["mid_block_type"] = "UNetMidBlock2DCrossAttn";
  c["transformer_layers_per_block"] = one_or_each(depth);
  json only_cross = json::array();
  for (size_t i = 0; i < widths_of(network).size(); ++i) only_cross.push_back(false);
  for (const std::string& level : list_of(transformer, "only_cross_attention"))
    only_cross[size_t(parse_number<int64_t>(level).value_or(0))] = true;
  c["only_cross_attention"] = list_of(transformer, "only_cross_attention").empty() ? json(false) : only_cross;
  c["use_linear_projection"] = text_of(transformer, "projection") == "linear";
}

json unet_config(const Value& network, const NamedTensors& tensors, int64_t height, int64_t width) {
  const auto size_of = [&](const char* name, int64_t dim) {
    const at::Tensor* t = find(tensors, name);
    return t ? t->size(dim) : 0;
  };
  const std::vector<bool> attends = attention_of(network, height);
  const Value embedding = part_of(network, "noise_embedding");
  const bool words = !part_of(network, "transformer").entries.empty();
  const UnetLayout layout = unet_layout(network);
  json c{{"_class_name", words ? "UNet2DConditionModel" : "UNet2DModel"},
         {"_diffusers_version", version},
         {"act_fn", "silu"},
         {"block_out_channels", widths_of(network)},
         {"center_input_sample", false},
         {"downsample_padding", text_of(network, "downsample_padding") == "below" ? 0 : 1},
         {"dropout", number_of(network, "dropout")},
         {"flip_sin_to_cos", !truth_of(embedding, "sin_first")},
         {"freq_shift", integer_of(embedding, "shift")},
         {"in_channels", size_of("input_blocks.0.0.weight", 1)},
         {"layers_per_block", layout.blocks},
         {"mid_block_scale_factor", 1},
         {"norm_eps", network.find("norm_eps") ? number_of(network, "norm_eps") : 1e-5},
         {"norm_num_groups", integer_of(network, "groups")},
         {"num_class_embeds", nullptr},
         {"out_channels", size_of("out.2.weight", 0)},
         {"resnet_time_scale_shift", truth_of(network, "scale_shift") ? "scale_shift" : "default"},
         {"time_embedding_type", "positional"}};
  c["sample_size"] = height == width ? json(height) : json({height, width});
  if (const int64_t classes = size_of("label_emb.weight", 0); classes > 0) c["num_class_embeds"] = classes;
  if (const int64_t added = size_of("label_emb.0.0.weight", 1); added > 0) {
    c["addition_embed_type"] = "text_time";
    c["addition_time_embed_dim"] = integer_of(network, "size_channels");
    c["projection_class_embeddings_input_dim"] = added;
  }
  if (const int64_t guidance = size_of("time_embed.guidance.weight", 1); guidance > 0) c["time_cond_proj_dim"] = guidance;
  c["class_embed_type"] = text_of(network, "class_embedding") == "sinusoidal" ? json("timestep") : json();
  const std::string attn = words ? "CrossAttn" : "Attn";
  const bool residual = text_of(network, "resampling") == "residual";
  c["down_block_types"] = block_types(attends, residual ? "ResnetDownsampleBlock2D" : "DownBlock2D", attn + "DownBlock2D", false);
  c["up_block_types"] = block_types(attends, residual ? "ResnetUpsampleBlock2D" : "UpBlock2D", attn + "UpBlock2D", true);
  if (residual) c["downsample_type"] = c["upsample_type"] = "resnet";
  if (words)
    set_transformers(c, network, layout, tensors);
  else
    set_plain_attention(c, network, layout, attends);
  return c;
}

/// Returns the numbers of each channel of the latents, `means` or `stds`; null if neither of both is given.
json channel_statistics(const Value& stage, const char* name) {
  const int64_t channels = integer_of(stage, "latent_channels");
  if (list_of(stage, "means").empty() && list_of(stage, "stds").empty()) return {};
  if (number_of(stage, "shift") != 0) throw ConfigError("autoencoder.shift is not 0, and diffusers takes no shift with means and stds");
  json all = json::array();
  for (const std::string& value : list_of(stage, name)) all.push_back(parse_number<double>(value).value_or(0));
  while (int64_t(all.size()) < channels) all.push_back(std::string_view(name) == "stds" ? 1.0 : 0.0);
  return all;
}

json stage_config(const Value& stage, const Value& image) {
  const std::vector<bool> attends = attention_of(stage, integer_of(image, "height"));
  const bool vq = text_of(stage, "type") == "vq";
  if (const int64_t inner = integer_of(stage, "inner_channels"); inner > 0 && inner != integer_of(stage, "latent_channels"))
    throw ConfigError(fmt::format("autoencoder.inner_channels is {}; diffusers' first stages have as many as the latent, {}", inner,
                                  text_of(stage, "latent_channels")));
  json c{{"_class_name", vq ? "VQModel" : "AutoencoderKL"},
         {"_diffusers_version", version},
         {"act_fn", "silu"},
         {"block_out_channels", widths_of(stage)},
         {"down_block_types", block_types(attends, "DownEncoderBlock2D", "AttnDownEncoderBlock2D", false)},
         {"in_channels", integer_of(image, "channels")},
         {"latent_channels", integer_of(stage, "latent_channels")},
         {"layers_per_block", integer_of(stage, "blocks")},
         {"mid_block_add_attention", truth_of(stage, "middle_attention")},
         {"norm_num_groups", integer_of(stage, "groups")},
         {"out_channels", integer_of(image, "channels")},
         {"sample_size", integer_of(image, "height")},
         {"scaling_factor", number_of(stage, "scale")},
         {"up_block_types", block_types(attends, "UpDecoderBlock2D", "AttnUpDecoderBlock2D", true)}};
  if (vq) {
    c["num_vq_embeddings"] = integer_of(stage, "codes");
    c["vq_embed_dim"] = nullptr;
  } else {
    c["force_upcast"] = true;
    c["shift_factor"] = number_of(stage, "shift") == 0 ? json() : json(number_of(stage, "shift"));
    for (const auto& [key, name] : {std::pair("latents_mean", "means"), std::pair("latents_std", "stds")})
      c[key] = channel_statistics(stage, name);
    c["use_quant_conv"] = truth_of(stage, "quant_conv");
    c["use_post_quant_conv"] = truth_of(stage, "quant_conv");
  }
  return c;
}

/// Writes what is exported part by part, and keeps what other programs will not find.
struct Export {
  const Contents& model;
  const std::string& source;
  Partial& out;
  std::vector<std::string> notes;
  json index = json::object();
  Value files = Value::map();  ///< places of the model's files, by the path that its configuration names

  [[noreturn]] void refuse(const std::string& what) const { throw ConfigError(fmt::format("{}: {}", source, what)); }

  void stage(const Value& section, const Value& image, const std::string& folder) {
    const std::string type = text_of(section, "type");
    if (type != "kl" && type != "vq") refuse(fmt::format("its autoencoder is '{}'; diffusers is given kl and vq", type));
    const NamedTensors tensors = below(model.tensors, "autoencoder.");
    NamedTensors known, own;
    for (const NamedTensor& t : to_diffusers_vae(tensors)) {
      const bool training =
          t.name == "quantize.unused" || t.name.starts_with("quantize.embedding.cluster") || t.name == "quantize.embedding.embed_avg";
      (training ? own : known).push_back(t);
    }
    out.config(folder + "config.json", stage_config(section, image));
    out.tensors(folder + "diffusion_pytorch_model.safetensors", known);
    if (!own.empty()) out.tensors(folder + "brume.safetensors", own);  // what only the training of a codebook needs
  }

  /// Writes the U-Net. `s`: the scheduler whose pipelines tell the network the noise level.
  void unet(const Value& network, const Value& image, const DiffusersSchedulerFile& s) {
    if (text_of(network, "type") != "unet")
      refuse(fmt::format("its network is '{}'; diffusers is given the unet", text_of(network, "type")));
    const bool words = network.find("transformer") && network.find("transformer")->is_map();
    if (const std::string way = text_of(network, "resampling"); way != "conv" && (words || way != "residual"))
      refuse(fmt::format("network.resampling is {}; the U-Nets of diffusers are given {}", way,
                         words ? "conv if they attend to words" : "conv and residual"));
    if (const std::string level = text_of(part_of(network, "noise_embedding"), "type"); level != "sinusoidal")
      refuse(fmt::format("network.noise_embedding is '{}'; the U-Nets of diffusers are given sinusoidal", level));
    if (const std::string up = text_of(network, "decoder_heads"); !up.empty() && up != text_of(network, "heads") && up != "null")
      refuse("network.decoder_heads differs from heads; the U-Nets of diffusers have as many heads in encoder and decoder");
    const Value embedding = part_of(network, "noise_embedding");
    if (text_of(embedding, "input") != s.input || number_of(embedding, "scale") != s.scale || number_of(embedding, "max_period") != 10000)
      notes.push_back("how the network receives the noise level (network.noise_embedding): diffusers has another form");
    const NamedTensors tensors = below(model.tensors, "network.");
    out.config("unet/config.json", unet_config(network, tensors, integer_of(image, "height"), integer_of(image, "width")));
    out.tensors("unet/diffusion_pytorch_model.safetensors", to_diffusers_unet(tensors, unet_layout(network)));
    index["unet"] = {"diffusers", words ? "UNet2DConditionModel" : "UNet2DModel"};
  }

  void scheduler(const DiffusersSchedulerFile& s) {
    json config = s.config;
    config["_diffusers_version"] = version;
    out.config("scheduler/scheduler_config.json", config);
    index["scheduler"] = {"diffusers", s.type};
    notes.insert(notes.end(), s.notes.begin(), s.notes.end());
  }

  void conditioner(const Words& words) {
    const Value& c = words.conditioner;
    const std::string type = text_of(c, "type");
    const NamedTensors tensors = below(model.tensors, words.prefix);
    const bool clip = !words.encoders().empty();
    const Files kept = files_in(model.tensors);
    for (const TextEncoderPlace& e : words.encoders()) {
      write_diffusers_text(out, e, below(model.tensors, e.prefix), kept, source);
      index["text_encoder" + e.ending] = {"transformers",
                                          integer_of(e.options, "projection") > 0 ? "CLIPTextModelWithProjection" : "CLIPTextModel"};
      index["tokenizer" + e.ending] = {"transformers", "CLIPTokenizer"};
      for (const auto& [path, bytes] : kept)
        if (!files.find(path) && fs::path(path).parent_path() == fs::path(text_of(e.options, "tokenizer")))
          files.set(path, brume::Value::text(fmt::format("tokenizer{}/{}", e.ending, fs::path(path).filename().string()), true));
      if (!words.xl() && integer_of(e.options, "clip_skip") > 0)
        notes.emplace_back("clip_skip, which other programs are asked for when they sample");
    }
    for (const auto& [path, bytes] : kept) {
      if (clip) break;
      const std::string place = "text_encoder/" + fs::path(path).filename().string();
      out.file(place, bytes);
      files.set(path, brume::Value::text(place, true));
    }
    const bool labels = type == "class_label";
    if (number_of(labels ? c : words.classes, "dropout") > 0) notes.emplace_back("that the last class is the null one, for cfg");
    if (clip || type == "none" || type.empty()) return;
    if (!tensors.empty()) {
      out.tensors("text_encoder/brume.safetensors", tensors);
      notes.push_back(fmt::format(
          "the conditioner '{}', which diffusers has no class for: text_encoder/ holds it and its files as brume has them", type));
    } else if (!labels) {
      notes.push_back(fmt::format("the conditioner '{}', which diffusers has no class for", type));
    }
  }

  void brume_yaml(const std::string& section, const Value& options) const {
    Value root = Value::map();
    root.set(section, options);
    if (model.metadata.has("sample")) root.set("sample", model.metadata.section("sample", source));
    if (!files.entries.empty()) root.set("files", files);
    out.file(
        "brume.yaml",
        "# The model as brume has it: `brume import` and `brume sample` read it. Other programs go by the JSON files.\n" + dump_yaml(root));
  }
};

/// Returns the pipeline of Stable Diffusion: an XL without its first text encoder is the refiner.
std::string stable_pipeline(const Words& words) {
  if (words.guidance && !words.xl() && !words.inpainting) return "LatentConsistencyModelPipeline";
  if (!words.xl()) return words.inpainting ? "StableDiffusionInpaintPipeline" : "StableDiffusionPipeline";
  if (words.inpainting) return "StableDiffusionXLInpaintPipeline";
  return words.encoders().size() == 2 ? "StableDiffusionXLPipeline" : "StableDiffusionXLImg2ImgPipeline";
}

/// Writes a transformer. `stage`: the model has a first stage. Without one, the transformer is written alone.
void export_transformer(Export& e, const Value& options, int64_t size, bool stage) {
  const TransformerDirectory made = write_diffusers_transformer(e.out, e.model, options, size, stage, e.source);
  e.notes.insert(e.notes.end(), made.notes.begin(), made.notes.end());
  e.files = made.files;
  if (made.pipeline) {
    e.stage(part_of(options, "autoencoder"), part_of(options, "image"), "vae/");
    e.index = made.index;
    e.index["vae"] = {"diffusers", "AutoencoderKL"};
    e.scheduler(to_diffusers_scheduler(options, e.model.metadata.section("sample", e.source)));
    e.index["_class_name"] = made.pipeline_name;
    e.index["_diffusers_version"] = version;
    e.out.config("model_index.json", e.index);
  }
  e.brume_yaml("model", options);
}

void export_model(Export& e) {
  const Value options = e.model.metadata.required("model", e.source);
  const Value image = part_of(options, "image"), stage = part_of(options, "autoencoder"), network = part_of(options, "network");
  const bool pixels = text_of(stage, "type") == "identity" || text_of(stage, "type").empty();
  Value latent = image;
  if (!pixels) {
    const int64_t halvings = int64_t(list_of(stage, "multipliers").size()) - 1;
    for (const char* side : {"height", "width"}) latent.set(side, Value::text(std::to_string(integer_of(image, side) >> halvings)));
  }
  if (is_transformer(network)) {
    if (const std::string type = text_of(stage, "type"); !pixels && type != "kl")
      e.refuse(fmt::format("its autoencoder is '{}'; diffusers' transformers are given kl", type));
    return export_transformer(e, options, integer_of(latent, "height"), !pixels);
  }
  if (!pixels) {
    const bool vq = text_of(stage, "type") == "vq";
    e.stage(stage, image, vq ? "vqvae/" : "vae/");
    e.index[vq ? "vqvae" : "vae"] = {"diffusers", vq ? "VQModel" : "AutoencoderKL"};
  }
  const DiffusersSchedulerFile scheduler = to_diffusers_scheduler(options, e.model.metadata.section("sample", e.source));
  e.unet(network, latent, scheduler);
  e.scheduler(scheduler);
  const Words words = words_of(part_of(options, "conditioner"));
  e.conditioner(words);
  const bool stable = !words.encoders().empty() && e.index.contains("vae");
  e.index["_class_name"] = stable ? stable_pipeline(words) : pixels ? "DDPMPipeline" : "LDMPipeline";
  e.index["_diffusers_version"] = version;
  if (stable)
    for (const char* none : {"feature_extractor", "image_encoder"}) e.index[none] = {nullptr, nullptr};
  if (stable && words.xl()) {
    e.index["force_zeros_for_empty_prompt"] = text_of(words.conditioner, "empty") == "zeros";
    if (words.sizes.find("score") && number_of(words.sizes, "score") > 0) e.index["requires_aesthetics_score"] = true;
  } else if (stable) {
    e.index["safety_checker"] = {nullptr, nullptr};
    e.index["requires_safety_checker"] = false;
  }
  e.out.config("model_index.json", e.index);
  e.brume_yaml("model", options);
}

}  // namespace

std::vector<std::string> export_diffusers(const Contents& model, const std::string& source, const fs::path& folder) {
  Partial out({{"", folder}});
  Export e{model, source, out, {}};
  if (model.metadata.has("classifier")) e.refuse("is a classifier; diffusers has no class for it");
  if (model.metadata.has("autoencoder")) {
    const Value options = model.metadata.required("autoencoder", source);
    e.stage(part_of(options, "network"), part_of(options, "image"), "");
    e.brume_yaml("autoencoder", options);
  } else {
    export_model(e);
  }
  out.commit();
  return e.notes;
}

}  // namespace brume
