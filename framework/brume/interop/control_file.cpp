#include "brume/interop/control_file.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/utf8.h"
#include "brume/config/yaml.h"
#include "brume/interop/import/diffusers_config.h"
#include "brume/interop/import/diffusers_unet.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/interop/layouts/addition_kind.h"
#include "brume/interop/layouts/diffusers_unet.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {
namespace fs = std::filesystem;

const ControlFamily controlnets{"controlnet", "ControlNet"}, t2i_adapters{"t2i_adapter", "T2I-Adapter"},
    ip_adapters{"ip_adapter", "IP-Adapter", true};

bool has(const NamedTensors& tensors, std::string_view name) { return find(tensors, name) != nullptr; }
bool any_begins(const NamedTensors& tensors, std::string_view prefix) {
  return std::any_of(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name.starts_with(prefix); });
}

std::string generation(int64_t context) {
  return context == 768    ? "SD 1"
         : context == 1024 ? "SD 2"
         : context == 2048 ? "SDXL"
                           : fmt::format("a model with tokens of width {}", context);
}

/// Returns the names, by their first part, with how many there are.
std::string grouped(const NamedTensors& tensors) {
  std::map<std::string, size_t> groups;
  for (const NamedTensor& t : tensors) ++groups[t.name.substr(0, t.name.find('.'))];
  std::vector<std::string> texts;
  for (const auto& [group, count] : groups) texts.push_back(count == 1 ? group : fmt::format("{}.* ({})", group, count));
  constexpr size_t most = 20;
  const size_t left = texts.size() > most ? texts.size() - most : 0;
  texts.resize(std::min(texts.size(), most));
  return fmt::format("{}{}", fmt::join(texts, ", "), left > 0 ? fmt::format(" and {} more", counted(left, "group")) : "");
}

int64_t context_of(const NamedTensors& tensors) {
  for (const NamedTensor& t : tensors)
    if (t.name.ends_with("attn2.to_k.weight") && t.tensor.dim() == 2) return t.tensor.size(1);
  return 0;
}

int64_t number_below(const NamedTensors& tensors, const std::string& prefix) {
  int64_t n = 0;
  while (any_begins(tensors, fmt::format("{}{}.", prefix, n))) ++n;
  return n;
}

/// Returns the names of diffusers' ControlNetModel that its U-Net does not have; stages: of the encoder.
NameTable own_names(int64_t hint_layers) {
  NameTable table;
  table.add("middle_block_out.0.", "controlnet_mid_block.");
  table.add("input_hint_block.0.", "controlnet_cond_embedding.conv_in.");
  for (int64_t i = 1; i + 1 < hint_layers; ++i)
    table.add(fmt::format("input_hint_block.{}.", 2 * i), fmt::format("controlnet_cond_embedding.blocks.{}.", i - 1));
  table.add(fmt::format("input_hint_block.{}.", 2 * (hint_layers - 1)), "controlnet_cond_embedding.conv_out.");
  for (int64_t i = 0; i < 64; ++i) table.add(fmt::format("zero_convs.{}.0.", i), fmt::format("controlnet_down_blocks.{}.", i));
  return table;
}

/// Returns the modules of the model's U-Net, with attention where the control has it.
UnetModules modules_of(const std::vector<Weight>& network, const NamedTensors& control) {
  std::vector<std::string> names;
  for (const Weight& w : network) names.push_back(w.name);
  UnetModules modules = unet_modules(names);
  for (size_t level = 0; level < modules.attention.size(); ++level)
    modules.attention[level] = any_begins(control, fmt::format("down_blocks.{}.attentions.0.", level));
  modules.middle_attention = any_begins(control, "mid_block.attentions.0.");
  return modules;
}

NamedTensors from_diffusers(const NamedTensors& tensors, const std::vector<Weight>& network) {
  const NameTable own = own_names(number_below(tensors, "controlnet_cond_embedding.blocks.") + 2);
  NamedTensors result, rest;
  for (const NamedTensor& t : tensors) {
    if (const auto name = own.ours(t.name))
      result.push_back({*name, t.tensor});
    else
      rest.push_back(t);
  }
  for (NamedTensor& t : from_diffusers_unet(rest, modules_of(network, tensors))) result.push_back(std::move(t));
  return result;
}

/// Returns W + up down, of the network's own weights (Hu et al. 2021), and what the file has whole.
NamedTensors from_lora(const ControlTensors& file, const std::vector<Weight>& network) {
  std::map<std::string, at::Tensor> all;
  for (const Weight& w : network)
    if (!w.name.starts_with("output_blocks.") && !w.name.starts_with("out.")) all[w.name] = w.tensor;
  std::vector<std::string> unknown;
  for (const NamedTensor& t : file.tensors) {
    if (t.name == "lora_controlnet" || t.name.ends_with(".down")) continue;
    if (!t.name.ends_with(".up")) {
      all[t.name] = t.tensor;
      continue;
    }
    const std::string module = t.name.substr(0, t.name.size() - 3);
    const at::Tensor* down = find(file.tensors, module + ".down");
    const auto weight = all.find(module + ".weight");
    if (!down || weight == all.end()) {
      unknown.push_back(t.name);
      continue;
    }
    const at::Tensor change = at::mm(t.tensor.to(at::kFloat).flatten(1), down->to(at::kFloat).flatten(1));
    if (change.numel() != weight->second.numel())
      throw ConfigError(fmt::format("{}: '{}' changes a weight of [{}] by [{}]; the control-LoRA is of another generation of models",
                                    file.source, module, fmt::join(weight->second.sizes(), ", "), fmt::join(change.sizes(), ", ")));
    weight->second = weight->second.to(at::kCPU, at::kFloat) + change.reshape(weight->second.sizes());
  }
  if (!unknown.empty())
    throw ConfigError(fmt::format("{}: the model has no weights for {}; the control-LoRA is of another generation of models", file.source,
                                  fmt::join(unknown, ", ")));
  NamedTensors result;
  for (const auto& [name, tensor] : all) result.push_back({name, tensor});
  return result;
}

/// Reads what the shapes tell. tensors: under CompVis' names.
ControlBranchOptions options_of(const std::string& source, const NamedTensors& tensors, const std::vector<Weight>& network) {
  ControlBranchOptions o;
  const auto hint = [&](int64_t layer) -> const at::Tensor& {
    const at::Tensor* t = find(tensors, fmt::format("input_hint_block.{}.weight", 2 * layer));
    if (!t || t->dim() != 4) throw ConfigError(fmt::format("{}: lacks the tensor 'input_hint_block.{}.weight'", source, 2 * layer));
    return *t;
  };
  o.hint_channels = hint(0).size(1);
  int64_t layers = 0;
  while (has(tensors, fmt::format("input_hint_block.{}.weight", 2 * layers))) ++layers;
  if (layers < 2 || layers % 2 != 0)
    throw ConfigError(fmt::format("{}: its encoder of hints has {}, and a ControlNet's an even number", source, counted(layers, "layer")));
  o.hint_widths.clear();
  for (int64_t i = 0; i + 1 < layers; i += 2) o.hint_widths.push_back(hint(i).size(0));
  std::vector<std::string> names;
  for (const Weight& w : network) names.push_back(w.name);
  const UnetModules modules = unet_modules(names);
  o.middle_attention = any_begins(tensors, "middle_block.2.");
  bool same = true;
  NamedTensors own;
  for (const Weight& w : network) own.push_back({w.name, w.tensor});
  for (size_t level = 0; level < modules.attention.size(); ++level) {
    const std::string here = fmt::format("input_blocks.{}.1.transformer_blocks.", 1 + int64_t(level) * (modules.blocks + 1));
    o.depth.push_back(number_below(tensors, here));
    same = same && o.depth.back() == number_below(own, here);
  }
  if (same) o.depth.clear();
  return o;
}

/// Sets what the config.json of a ControlNetModel says and the shapes do not. Throws ConfigError for what an encoder here cannot be.
void set_config(ControlBranchOptions& o, const fs::path& file) {
  nlohmann::json json = read_json(file);
  if (!json.is_object()) throw ConfigError(fmt::format("{}: is no JSON object", file.string()));
  const char* part = "a ControlNet of brume";
  const DiffusersConfig given(json, file.string(), part);
  // It is the encoder of a U-Net, whose decoder the reader of U-Nets expects to be the mirror image.
  std::vector<std::string> blocks = given.get(
      "down_block_types", std::vector<std::string>{"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"});
  std::reverse(blocks.begin(), blocks.end());
  for (std::string& block : blocks)
    if (const size_t at = block.find("Down"); at != block.npos) block.replace(at, 4, "Up");
  json["up_block_types"] = blocks, json["_class_name"] = "UNet2DConditionModel";
  const DiffusersUnet encoder = read_diffusers_unet(DiffusersConfig(json, file.string(), part));
  o.heads = encoder.heads, o.groups = encoder.groups, o.norm_eps = encoder.norm_eps, o.pad_below = encoder.pad_below;
  o.only_cross_attention = encoder.only_cross_levels();
  o.sin_first = encoder.sin_first, o.frequency_shift = encoder.frequency_shift;
  o.global_pool = given.get("global_pool_conditions", false);
  const auto order = given.get<std::string>("controlnet_conditioning_channel_order", "rgb");
  if (order != "rgb" && order != "bgr") given.refuse("controlnet_conditioning_channel_order", "\"rgb\" and \"bgr\"");
  o.blue_first = order == "bgr";
}

/// Returns true if a single file averages its residuals, which its tensors do not tell: by the YAML file of the same name, or, as in
/// ComfyUI, by its own ("control_v11e_sd15_shuffle").
bool pools(const fs::path& file) {
  if (const fs::path yaml = fs::path(file).replace_extension(".yaml"); fs::is_regular_file(yaml)) {
    const Value root = load_yaml(yaml);
    if (const Value& said = nearest(root, "model.params.global_average_pooling"); said.is_scalar())
      return lower_case(said.scalar) == "true";
  }
  const std::string name = file.stem().string();
  return name.ends_with("_shuffle") || name.ends_with("_shuffle_fp16");
}

}  // namespace

ControlTensors control_tensors(const std::string& path) {
  ControlTensors file{path, {}};
  if (fs::is_directory(path))
    file.tensors = component_tensors(path);
  else if (fs::is_regular_file(path))
    file.tensors = load_tensors(path);
  else
    throw ConfigError(fmt::format("control: there is no file '{}'", path));
  if (any_begins(file.tensors, "control_model.")) {
    NamedTensors control;
    for (NamedTensor& t : file.tensors)
      if (t.name.starts_with("control_model.")) control.push_back(std::move(t));
    file.tensors = std::move(control);
  }
  for (const std::string_view prefix : {"module.", "control_model.", "controlnet.", "adapter."})
    for (NamedTensor& t : file.tensors)
      if (t.name.starts_with(prefix)) t.name.erase(0, prefix.size());
  return file;
}

const ControlFamily* control_family(const NamedTensors& tensors) {
  if (has(tensors, "controlnet_cond_embedding.conv_in.weight") || has(tensors, "input_hint_block.0.weight")) return &controlnets;
  if (any_begins(tensors, "image_proj.") && any_begins(tensors, "ip_adapter.")) return &ip_adapters;
  if (has(tensors, "body.0.block1.weight") || has(tensors, "body.0.resnets.0.block1.weight") || has(tensors, "body.0.in_conv.weight"))
    return &t2i_adapters;
  return nullptr;
}

void expect_control(const ControlTensors& file, const std::string& type) {
  const ControlFamily* family = control_family(file.tensors);
  if (family && family->type == type) return;
  for (const ControlFamily* wanted : {&controlnets, &t2i_adapters, &ip_adapters})
    if (wanted->type == type) refuse_control(file, wanted->name);
  throw std::logic_error("expect_control: no type of a control: " + type);
}

void refuse_control(const ControlTensors& file, const std::string& wanted) {
  const ControlFamily* family = control_family(file.tensors);
  throw ConfigError(fmt::format("{}: is no {}{}; its tensors are {}", file.source, wanted,
                                family ? fmt::format("; its type is {} ({})", family->type, family->name) : likely_kind(file.tensors),
                                grouped(file.tensors)));
}

void check_generation(const ControlTensors& file, const std::string& what, int64_t context, int64_t model) {
  if (context > 0 && model > 0 && context != model)
    throw ConfigError(fmt::format("{}: this {} is of {}, the model is {}", file.source, what, generation(context), generation(model)));
}

ControlNetFile read_controlnet(const std::string& path, const std::vector<Weight>& network, int64_t context_width) {
  const ControlTensors file = control_tensors(path);
  expect_control(file, controlnets.type);
  check_generation(file, "ControlNet", context_of(file.tensors), context_width);
  ControlNetFile result{path, {}, {}};
  try {
    if (has(file.tensors, "lora_controlnet"))
      result.tensors = from_lora(file, network);
    else if (has(file.tensors, "controlnet_cond_embedding.conv_in.weight"))
      result.tensors = from_diffusers(file.tensors, network);
    else
      result.tensors = file.tensors;
  } catch (const ConfigError& e) {
    if (std::string(e.what()).find(path) != std::string::npos) throw;
    throw ConfigError(fmt::format("{}: {}", path, e.what()));
  }
  result.options = options_of(path, result.tensors, network);
  const fs::path config = fs::path(path) / "config.json";
  if (fs::is_directory(path) && fs::is_regular_file(config)) set_config(result.options, config);
  if (!fs::is_directory(path)) result.options.global_pool = pools(path);
  return result;
}

}  // namespace brume
