#include "brume/interop/additions.h"
#include "brume/config/counted.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "brume/interop/layouts/control_names.h"
#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/lora_tensor_name.h"
#include "brume/interop/textual_inversion.h"

namespace brume {
namespace {

bool any_has(const NamedTensors& tensors, std::string_view part) {
  return std::any_of(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name.find(part) != std::string::npos; });
}

/// Returns the writer of a LoRA, by a name in it.
std::string writer_of(const std::string& name) {
  if (name.starts_with(peft_prefix)) return "PEFT's";
  if (name.starts_with("diffusion_model.") || name.starts_with("text_encoders.")) return "ComfyUI's";
  return name.starts_with("lora_") ? "kohya's" : "diffusers'";
}

/// Kinds of adapters by a role of their tensors; a kind that comes first hides the next one.
constexpr std::pair<std::string_view, std::string_view> kinds[] = {
    {"dora_scale", "DoRA"}, {"lora_up", "LoRA"}, {"hada_w1_a", "LoHa"}, {"lokr_w1", "LoKr"},
    {"lokr_w1_a", "LoKr"},  {"a1", "GLoRA"},     {"oft_blocks", "OFT"}, {"oft_R", "OFT"},
    {"boft_R", "BOFT"},     {"on_input", "IA3"}, {"ia3_l", "IA3"},      {"diff", "full difference"}};

Addition lora(const NamedTensors& tensors) {
  std::set<int64_t> ranks;
  std::set<std::string> parts, roles;
  std::string writer;
  for (const NamedTensor& t : tensors) {
    const auto name = lora_tensor_name(t.name);
    if (!name || name->role == "alpha") continue;
    writer = writer_of(t.name);
    roles.insert(name->role);
    const bool ranked = name->role == "lora_down" || name->role == "hada_w1_b" || name->role == "lokr_w2_b" || name->role == "lokr_w1_b";
    if (ranked && t.tensor.dim() > 1) ranks.insert(t.tensor.size(0));
    const std::string part = lora_module(t.name).first;
    parts.insert(part.starts_with("text_encoder") || t.name.starts_with("lora_te") ? "text encoder" : "U-Net");
  }
  const auto kind = std::find_if(std::begin(kinds), std::end(kinds), [&](const auto& k) { return roles.contains(std::string(k.first)); });
  return {kind == std::end(kinds) ? "LoRA" : std::string(kind->second),
          fmt::format("of the {}{}, with {} names; sample.lora adds it", fmt::join(parts, " and the "),
                      ranks.empty() ? "" : fmt::format(", rank {}", fmt::join(ranks, ", ")), writer),
          ""};
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

}  // namespace

Addition addition_of(const std::string& path, const NamedTensors& tensors) {
  if (const auto kind = control_kind(tensors); !kind.empty()) return {std::string(kind), "sample.control steers by it", ""};
  if (any_has(tensors, "motion_modules.")) return {"motion adapter (AnimateDiff)", "", "brume does not read it"};
  if (any_lora(tensors)) return lora(tensors);
  const bool xl = two_embeddings(tensors);
  if (!xl && !may_be_embedding(tensors)) return {};
  const Word word = read_embedding(path);
  const std::string more = xl ? fmt::format(" and {}", word.others[0].size(1)) : "";
  return {xl ? "textual inversion of two text encoders (SDXL)" : "textual inversion",
          fmt::format("{} of width {}{}, the word '{}'; sample.prompts.embeddings adds it", counted(word.vectors.size(0), "vector"),
                      word.vectors.size(1), more, word.text),
          ""};
}

std::string likely_kind(const NamedTensors& tensors) {
  if (const auto kind = control_kind(tensors); !kind.empty())
    return fmt::format("; it is {} {}, which sample.control steers by", kind == "IP-Adapter" ? "an" : "a", kind);
  if (any_has(tensors, "motion_modules.")) return "; it is a motion adapter (AnimateDiff), which brume does not read";
  if (any_lora(tensors)) return fmt::format("; it is a {}, which sample.lora adds", lora(tensors).name);
  if (two_embeddings(tensors) || may_be_embedding(tensors)) return "; it is a textual inversion, which sample.prompts.embeddings adds";
  if (any_has(tensors, "model.diffusion_model.")) return "; it is a whole model";
  if (any_has(tensors, "controlnet_x_embedder")) return "; it is a ControlNet of FLUX or SD 3, which brume does not read";
  if (any_has(tensors, "double_blocks.")) return "; it is a network of FLUX";
  if (any_has(tensors, "joint_blocks.")) return "; it is a network of SD 3";
  if (any_has(tensors, "vision_model.") || any_has(tensors, "visual.")) return "; it is an image encoder of CLIP";
  if (any_has(tensors, "down_blocks.0.") || any_has(tensors, "text_model.encoder.layers.0."))
    return "; it is a part of a diffusers directory: the folder with its configuration is the model";
  return "";
}

}  // namespace brume
