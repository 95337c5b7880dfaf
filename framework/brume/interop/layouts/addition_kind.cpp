#include "brume/interop/layouts/addition_kind.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "brume/interop/layouts/control_names.h"
#include "brume/interop/layouts/lora_tensor_name.h"

namespace brume {
namespace {

/// Kinds of adapters by a role of their tensors; a kind that comes first hides the next one.
constexpr std::pair<std::string_view, std::string_view> kinds[] = {
    {"dora_scale", "DoRA"}, {"lora_up", "LoRA"}, {"hada_w1_a", "LoHa"}, {"lokr_w1", "LoKr"},
    {"lokr_w1_a", "LoKr"},  {"a1", "GLoRA"},     {"oft_blocks", "OFT"}, {"oft_R", "OFT"},
    {"boft_R", "BOFT"},     {"on_input", "IA3"}, {"ia3_l", "IA3"},      {"diff", "full difference"}};

}  // namespace

bool any_has(const NamedTensors& tensors, std::string_view part) {
  return std::any_of(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name.find(part) != std::string::npos; });
}

bool may_be_embedding(const NamedTensors& tensors) {
  constexpr int64_t most_vectors = 256, least_width = 16;
  const auto vectors = [](const NamedTensor& t) {
    return t.tensor.is_floating_point() && t.tensor.numel() > 0 &&
           (t.tensor.dim() == 1 || (t.tensor.dim() == 2 && t.tensor.size(0) <= most_vectors)) && t.tensor.size(-1) >= least_width;
  };
  const auto number = [](const NamedTensor& t) { return t.name.starts_with("string_to_token."); };
  const int64_t count = std::count_if(tensors.begin(), tensors.end(), vectors),
                numbers = std::count_if(tensors.begin(), tensors.end(), number);
  return count == 1 && count + numbers == int64_t(tensors.size());
}

bool two_embeddings(const NamedTensors& tensors) { return tensors.size() == 2 && find(tensors, "clip_l") && find(tensors, "clip_g"); }
bool any_lora(const NamedTensors& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const NamedTensor& t) { return is_lora_matrix(t.name); });
}

std::string lora_kind(const NamedTensors& tensors) {
  std::set<std::string> roles;
  for (const NamedTensor& t : tensors)
    if (const auto name = lora_tensor_name(t.name); name && name->role != "alpha") roles.insert(name->role);
  const auto kind = std::find_if(std::begin(kinds), std::end(kinds), [&](const auto& k) { return roles.contains(std::string(k.first)); });
  return kind == std::end(kinds) ? "LoRA" : std::string(kind->second);
}

std::string likely_kind(const NamedTensors& tensors) {
  if (const auto kind = control_kind(tensors); !kind.empty())
    return fmt::format("; it is {} {}, which sample.control steers by", kind == "IP-Adapter" ? "an" : "a", kind);
  if (any_has(tensors, "motion_modules.")) return "; it is a motion adapter (AnimateDiff), which brume does not read";
  if (any_lora(tensors)) return fmt::format("; it is a {}, which sample.lora adds", lora_kind(tensors));
  if (two_embeddings(tensors) || may_be_embedding(tensors)) return "; it is a textual inversion, which sample.prompts.embeddings adds";
  if (any_has(tensors, "model.diffusion_model.")) return "; it is a whole model";
  if (any_has(tensors, "controlnet_x_embedder") || any_has(tensors, "pos_embed_input"))
    return "; it is a ControlNet of FLUX or SD 3, which brume does not read";
  if (any_has(tensors, "double_blocks.")) return "; it is a network of FLUX";
  if (any_has(tensors, "joint_blocks.")) return "; it is a network of SD 3";
  if (any_has(tensors, "vision_model.") || any_has(tensors, "visual.")) return "; it is an image encoder of CLIP";
  if (any_has(tensors, "down_blocks.0.") || any_has(tensors, "text_model.encoder.layers.0."))
    return "; it is a part of a diffusers directory: the folder with its configuration is the model";
  return "";
}

}  // namespace brume
