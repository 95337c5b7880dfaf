// Latent diffusion and Stable Diffusion in one file (Rombach et al. 2022): a Lightning checkpoint with its YAML next to it, or a
// safetensors file alone, which is known by its shapes: SD 1 by CLIP's encoder of width 768 (eps, 8 heads), SD 2 by OpenCLIP's of 1024
// (v if it is the one for 768 pixels, heads of width 64).
//
//   model.diffusion_model.*   the U-Net            model_ema.*          its moving average, if there is one (names without dots)
//   first_stage_model.*       kl or vq             scale_factor         latent = scale_factor z
//   conditioner.embedders.*   the text encoders of SDXL (ldm_xl.h)
//   cond_stage_model.*        CLIP's text encoder, whose tokenizer is not in such files, or a table of classes
//
// A first stage and a text encoder that are not in the file can be taken from others (ldm_completion.h).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "brume/config/counted.h"
#include "brume/config/number.h"
#include "brume/config/tree.h"
#include "brume/interop/import/families.h"
#include "brume/interop/import/ldm_completion.h"
#include "brume/interop/import/ldm_condition.h"
#include "brume/interop/import/ldm_reading.h"
#include "brume/interop/import/ldm_xl.h"
#include "brume/interop/layouts/conditioning.h"
#include "brume/interop/layouts/control_names.h"

namespace brume {
namespace {

constexpr std::string_view unet_prefix = "model.diffusion_model.", text_prefix = "cond_stage_model.", ema_prefix = "model_ema.",
                           xl_text_prefix = "conditioner.";

/// Returns the U-Net's tensors: those of its moving average, if there is one, unless ema=false or the YAML's use_ema say otherwise.
NamedTensors unet_tensors(LdmReading& r) {
  const std::optional<bool> wish = r.truth("ema");
  const bool averaged = any_begins(r.source.tensors, "model_ema.diffusion_model");
  if (wish.value_or(false) && !averaged) r.refuse("ema=true: holds no moving averages ('model_ema.diffusion_model…')");
  const bool use = averaged && (wish ? *wish : r.config.truth("use_ema", true));
  std::map<std::string, at::Tensor> averages;
  for (const NamedTensor& t : r.source.tensors)
    if (use && t.name.starts_with(ema_prefix)) averages.emplace(t.name.substr(ema_prefix.size()), t.tensor);
  NamedTensors result;
  std::vector<std::string> missing;
  for (const NamedTensor& t : r.source.tensors) {
    if (!t.name.starts_with(unet_prefix)) continue;
    if (!use) {
      result.push_back({t.name.substr(unet_prefix.size()), t.tensor});
      continue;
    }
    std::string name = t.name.substr(std::string_view("model.").size());
    name.erase(std::remove(name.begin(), name.end(), '.'), name.end());
    const auto at = averages.find(name);
    if (at == averages.end())
      missing.push_back(name);
    else
      result.push_back({t.name.substr(unet_prefix.size()), at->second});
  }
  if (!missing.empty())
    r.refuse(fmt::format("its moving averages lack {} of the U-Net's tensors, 'model_ema.{}' first; ema=false takes the weights themselves",
                         missing.size(), missing.front()));
  if (use) r.losses.push_back("the weights as trained: their moving averages were taken (ema=false takes the weights)");
  if (averaged && !use)
    r.losses.push_back(
        fmt::format("the moving averages of the weights (model_ema){}", wish ? "" : ", as use_ema of its YAML says (ema=true takes them)"));
  return result;
}

/// Returns true if it is LatentInpaintDiffusion: the mask, then the latent of the masked image. Models without words (conditioning_key
/// concat) have another order, and a mask in [-1, 1].
bool inpaints(const LdmReading& r, const LdmUnet& u, int64_t latent_channels) {
  if (u.context_width == 0 || u.in_channels != inpainting_channels(latent_channels)) return false;
  if (r.config.word("conditioning_key").value_or("hybrid") != "hybrid") return false;
  const Value* keys = r.config.find("concat_keys");
  if (!keys) return true;
  std::vector<std::string> given;
  for (const Value& key : keys->items) given.push_back(key.scalar);
  if (given == std::vector<std::string>{"mask", "masked_image"}) return true;
  throw ConfigError(
      {{keys->place, "model.params.concat_keys", fmt::format("is [{}]; brume's order is [mask, masked_image]", fmt::join(given, ", "))}});
}

/// Throws ConfigError if the configuration says anything else of the U-Net than its tensors do.
void compare(const LdmReading& r, const LdmUnet& u, int64_t latent_channels) {
  std::vector<Problem> problems;
  const auto same = [&](const char* key, int64_t have, int64_t otherwise) {
    const std::string path = fmt::format("unet_config.params.{}", key);
    const std::optional<int64_t> given = r.config.integer(path);
    if (given.value_or(otherwise) == have) return;
    const Value* v = r.config.find(path);
    problems.push_back({v ? v->place : Place(), "model.params." + path, fmt::format("is {}, and the tensors have {}", *given, have)});
  };
  same("model_channels", u.channels, u.channels);
  same("in_channels", u.in_channels, u.in_channels);
  same("out_channels", u.out_channels, u.out_channels);
  same("num_res_blocks", u.blocks, u.blocks);
  if (u.context_width > 0) same("context_dim", u.context_width, u.context_width);
  if (const Value* mult = r.config.find("unet_config.params.channel_mult"); mult && mult->is_list()) {
    std::vector<std::string> given;
    for (const Value& m : mult->items) given.push_back(m.scalar);
    const std::string wanted = fmt::format("{}", fmt::join(u.multipliers, ", ")), found = fmt::format("{}", fmt::join(given, ", "));
    if (wanted != found)
      problems.push_back(
          {mult->place, "model.params.unet_config.params.channel_mult", fmt::format("is [{}], and the tensors have [{}]", found, wanted)});
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
  if (u.in_channels != latent_channels && !inpaints(r, u, latent_channels))
    r.refuse(
        fmt::format("the U-Net takes {} and latents have {}: of models that receive an image with their input, those are imported "
                    "that inpaint by words ({}, conditioning_key hybrid); depth, upscaling and inpainting "
                    "without words are not",
                    counted(u.in_channels, "channel"), latent_channels, counted(inpainting_channels(latent_channels), "channel")));
  if (u.out_channels != latent_channels)
    r.refuse(fmt::format("the U-Net gives {} and latents have {}; those of latent diffusion have as many",
                         counted(u.out_channels, "channel"), latent_channels));
}

/// The published models that are known by their shapes.
enum class Published { none, sd1, sd2, xl };

Published published(const LdmUnet& u, const std::optional<LdmFirstStage>& stage) {
  if (!stage || stage->codes != 0 || stage->ratio() != 8) return Published::none;
  if (u.added_width > 0 && u.transformer) return Published::xl;
  if (u.channels != 320) return Published::none;
  return u.context_width == 768 ? Published::sd1 : u.context_width == 1024 ? Published::sd2 : Published::none;
}

/// Sets the heads: as given, else those of Stable Diffusion if it is one.
void set_heads(const LdmReading& r, LdmUnet& u, Published model) {
  if (!u.attends()) return;
  const auto positive = [](std::optional<int64_t> n) { return n && *n > 0 ? n : std::nullopt; };  // -1 is "not given" there
  u.head_channels = positive(r.integer("num_head_channels", "unet_config.params.num_head_channels"));
  if (!u.head_channels) u.heads = positive(r.integer("num_heads", "unet_config.params.num_heads"));
  if (u.heads || u.head_channels) return;
  if (model == Published::sd1)
    u.heads = 8;
  else if (model != Published::none)
    u.head_channels = 64;
  else
    r.refuse("how many heads its attention has cannot be read from tensors: num_heads=N or num_head_channels=N says it, or its YAML");
}

LdmBetas betas_of(const Source& source) {
  const at::Tensor* found = find(source.tensors, "betas");
  if (!found || found->dim() != 1) return {};
  const at::Tensor betas = found->to(at::kDouble).contiguous();
  LdmBetas all{{betas.data_ptr<double>(), betas.data_ptr<double>() + betas.numel()}};
  if (found->scalar_type() == at::kHalf) all.rounding = 0x1p-10;
  if (found->scalar_type() == at::kBFloat16) all.rounding = 0x1p-7;
  return all;
}

/// Returns the noise schedule: that of the YAML or the buffer, else Stable Diffusion's; with the tensor "ztsnr" at zero terminal SNR.
Value noise_of(const LdmReading& r, Published model) {
  Value noise = ldm_schedule(r.config, betas_of(r.source));
  if (!noise.is_null()) return noise;
  if (model == Published::none) r.refuse("its noise schedule is not in it: a YAML file with the same name says it");
  return find(r.source.tensors, "ztsnr") ? plugin_of("zero_terminal_snr", {{"schedule", "scaled_linear"}}) : value_of("scaled_linear");
}

/// Returns the scale of latent = scale z: as set, else the buffer that was measured while training, else as configured, else Stable
/// Diffusion's; `xl` of SDXL.
double scale_of(const LdmReading& r, Published model, double xl) {
  if (r.setting("scale_factor")) return *r.number("scale_factor", "");
  if (const at::Tensor* buffer = find(r.source.tensors, "scale_factor")) {
    if (buffer->numel() != 1) r.refuse(fmt::format("tensor 'scale_factor' has {}, expected 1", counted(buffer->numel(), "number")));
    return double(float(buffer->to(at::kDouble).item<double>()));
  }
  if (const auto configured = r.config.number("scale_factor")) return *configured;
  if (r.config.there()) return 1;
  if (model == Published::xl) return xl;
  if (model != Published::none) return 0.18215;
  r.refuse("what the latents are scaled by is not in it: scale_factor=X says it, or its YAML");
}

/// Returns true if SD 2 predicts v, and the reason: the one for inpainting was made of the base; the published base is known by its
/// number of updates; else the last attention's norm has spread further if v was learned (ComfyUI's rule), which says nothing of weights
/// that nobody trained.
std::pair<std::string, std::string> prediction_of_sd2(const LdmReading& r, const NamedTensors& network, bool inpainting) {
  if (inpainting) return {"eps", "SD 2 for inpainting"};
  const auto updates = r.source.metadata.find("global_step");
  if (updates != r.source.metadata.end() && updates->second == "875000") return {"eps", "SD 2 base, by its 875000 updates"};
  const at::Tensor* norm = find(network, "output_blocks.11.1.transformer_blocks.0.norm1.bias");
  const double spread = norm && norm->numel() > 1 ? norm->to(at::kDouble).std(false).item<double>() : 0;
  if (spread > 0.09) return {"v", "by the spread of its last attention's norm"};
  if (spread > 0) return {"eps", "by the spread of its last attention's norm"};
  return {"v", "SD 2 for 768 pixels"};
}

/// Returns "eps", "x0" or "v".
std::string parameterization_of(LdmReading& r, const NamedTensors& network, Published model, bool inpainting) {
  static const std::array<std::string, 3> known{"eps", "x0", "v"};
  std::string given = r.config.word("parameterization").value_or("eps");
  const auto written = r.source.metadata.find("modelspec.prediction_type");
  if (const std::string* set = r.setting("parameterization")) {
    given = *set;
  } else if (!r.config.there() && written != r.source.metadata.end()) {
    given = written->second == "epsilon" ? "eps" : written->second;
  } else if (!r.config.there() && find(r.source.tensors, "v_pred")) {
    given = known[2];  // "v": how fine-tuned models of SDXL say it
  } else if (!r.config.there() && model == Published::sd2) {
    const auto [prediction, reason] = prediction_of_sd2(r, network, inpainting);
    given = prediction;
    r.losses.push_back(fmt::format("not in the file: whether it predicts noise or v; {} is taken ({}); parameterization=… says otherwise",
                                   prediction, reason));
  }
  if (std::find(known.begin(), known.end(), given) == known.end())
    r.refuse(fmt::format("parameterization '{}' is unknown; known: eps, x0, v", given));
  return given;
}

/// Returns the height of the latents as the YAML has it.
std::optional<int64_t> configured_size(const LdmConfig& config) {
  for (const char* path : {"image_size", "unet_config.params.image_size"}) {
    const Value* v = config.find(path);
    if (v && v->is_list() && !v->items.empty() && v->items[0].is_scalar()) return parse_number<int64_t>(v->items[0].scalar).value_or(0);
    if (v) return config.integer(path);
  }
  return {};
}

/// Returns the height of the latents.
int64_t latent_size(const LdmReading& r, const std::string& parameterization, int64_t ratio, Published model) {
  if (r.setting("size")) {
    const int64_t size = *r.integer("size", "");
    if (size % ratio) throw ConfigError(fmt::format("size={}: expected a multiple of {}", size, ratio));
    return size / ratio;
  }
  const std::optional<int64_t> given = configured_size(r.config);
  if (model == Published::sd2 && parameterization == "v" && given.value_or(64) == 64)
    return 768 / ratio;  // its YAML says 64 for both sizes of SD 2
  if (given) return *given;
  if (model != Published::none) return (model == Published::xl ? 1024 : 512) / ratio;
  r.refuse("the size of its images is not in it: size=PIXELS says it, or its YAML");
}

/// Says of the tensors that nobody asked for what they are.
void name_the_rest(LdmReading& r) {
  static const std::array<std::string_view, 10> ours{unet_prefix,    first_stage_prefix, text_prefix, ema_prefix,
                                                     xl_text_prefix, "v_pred",           "ztsnr",     "edm_mean",
                                                     "edm_std",      "edm_vpred.sigma_"};
  // The noise schedule's tables, and what else LatentDiffusion registers.
  static const std::array<std::string_view, 9> tables{"betas",      "denoiser.sigmas", "alphas_cumprod", "sqrt_", "log_one_minus_",
                                                      "posterior_", "lvlb_weights",    "scale_factor",   "logvar"};
  std::vector<std::string> rest;
  bool loss = false;
  for (const NamedTensor& t : r.source.tensors) {
    const auto begins = [&](std::string_view prefix) { return t.name.starts_with(prefix); };
    loss = loss || begins("first_stage_model.loss.") || begins("loss.");
    if (std::none_of(ours.begin(), ours.end(), begins) && std::none_of(tables.begin(), tables.end(), begins) && !begins("loss."))
      rest.push_back(t.name);
  }
  if (loss) r.losses.push_back("the losses the first stage was trained with (its discriminator, LPIPS)");
  if (!rest.empty())
    r.losses.push_back(fmt::format("{} that are no part of the model: '{}'{}", counted(rest.size(), "tensor"), rest.front(),
                                   rest.size() > 1 ? ", …" : ""));
}

/// Returns the sampling of scripts/txt2img.py: DDIM or PLMS at times 1, 1 + T/steps, …, ending at the schedule's first sigma, with cfg if
/// there is a null condition. SDXL as published with diffusers: Euler at the same times.
Value sample_of(Published model, const std::vector<Value>& guidance) {
  const bool xl = model == Published::xl;
  const Value leading =
      xl ? plugin_of("leading", {{"offset", 1}}) : plugin_of("leading", {{"offset", 1}, {"fill", true}, {"final", "minimum"}});
  return map_of({{"sampler", xl ? "euler" : "ddim"}, {"spacing", leading}, {"steps", 50}, {"guidance", guidance}});
}

/// Returns true for a U-Net alone, under the names that it has within a checkpoint (ComfyUI's "diffusion models", ComfyUI-GGUF).
bool is_bare_unet(const NamedTensors& tensors) {
  const auto transformer = [](const NamedTensor& t) { return t.name.find(".1.transformer_blocks.") != std::string::npos; };
  return find(tensors, "input_blocks.0.0.weight") && std::any_of(tensors.begin(), tensors.end(), transformer) &&
         control_kind(tensors).empty();
}

/// Returns the source with the tensors of a bare U-Net under the names of a checkpoint.
Source whole_names(Source source) {
  if (!is_bare_unet(source.tensors)) return source;
  for (NamedTensor& t : source.tensors) t.name.insert(0, unet_prefix);
  return source;
}

bool knows_ldm(const Source& source) { return any_begins(source.tensors, unet_prefix) || is_bare_unet(source.tensors); }

Imported import_ldm(const Source& given, const ImportOptions& options) {
  const Source source = whole_names(given);
  LdmReading r(source, options);
  Imported result;
  const NamedTensors network = unet_tensors(r);
  LdmUnet u = r.of_tensors([&] { return read_ldm_unet(ModuleTensors(network, "")); });
  const ModuleTensors stage = ldm_first_stage_module(r, u.out_channels);
  std::optional<LdmFirstStage> first_stage;
  if (!stage.empty()) first_stage = r.of_tensors([&] { return read_ldm_first_stage(stage); });
  compare(r, u, first_stage ? first_stage->latent_channels : u.out_channels);
  const Published model = published(u, first_stage);
  set_heads(r, u, model);

  const bool inpainting = u.in_channels != u.out_channels;
  const std::string parameterization = parameterization_of(r, network, model, inpainting);
  const int64_t ratio = first_stage ? first_stage->ratio() : 1, size = latent_size(r, parameterization, ratio, model);
  const std::optional<XlLevels> edm = model == Published::xl && !r.config.there() ? xl_levels(r) : std::nullopt;
  const Value noise = edm ? edm->noise : noise_of(r, model);
  for (const NamedTensor& t : network) result.tensors.push_back({"network." + t.name, t.tensor});
  LdmCondition condition = read_ldm_condition(r, u);
  u.size_channels = condition.size_channels;
  std::vector<Value> others = condition.others;
  if (inpainting) others.insert(others.begin(), masked_image());
  for (const NamedTensor& t : condition.tensors) result.tensors.push_back({words_prefix(others) + t.name, t.tensor});
  result.files = std::move(condition.files);
  if (first_stage)
    for (const NamedTensor& t : ldm_first_stage_tensors(stage)) result.tensors.push_back({"autoencoder." + t.name, t.tensor});
  name_the_rest(r);
  Value unet = u.options(size), autoencoder = value_of("identity");
  if (first_stage) autoencoder = first_stage->options(size * ratio, scale_of(r, model, edm ? edm->scale : 0.13025));
  if (edm) edm->set(unet, autoencoder);
  result.options =
      section_of(map_of({{"image", image_of(first_stage ? first_stage->image_channels : u.out_channels, size * ratio, size * ratio)},
                         {"autoencoder", autoencoder},
                         {"network", unet},
                         {"conditioner", composite_of(condition.conditioner, others)},
                         {"noise", noise},
                         {"parameterization", edm ? edm->parameterization : value_of(parameterization)}}),
                 source.path.string());
  result.sample = section_of(edm ? edm->sample(condition.guidance) : sample_of(model, condition.guidance), source.path.string());
  result.losses = std::move(r.losses);
  return result;
}

}  // namespace

const Family compvis_ldm{"latent diffusion or Stable Diffusion in one file", knows_ldm, import_ldm};

}  // namespace brume
