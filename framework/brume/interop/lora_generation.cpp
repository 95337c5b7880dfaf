#include "brume/interop/lora_generation.h"

#include <algorithm>
#include <string_view>

namespace brume {
namespace {

/// Parts of names that one generation alone has: in LoRA files of any writer, and in models.
constexpr std::pair<std::string_view, std::string_view> names[] = {{"double_blocks", "FLUX"},
                                                                   {"single_blocks", "FLUX"},
                                                                   {"single_transformer_blocks", "FLUX"},
                                                                   {"joint_blocks", "SD 3"},
                                                                   {"adaln_single", "PixArt"},
                                                                   {"lora_te2_", "SDXL"},
                                                                   {"text_encoder_2.", "SDXL"},
                                                                   {"down_blocks_2_attentions_1_transformer_blocks_9", "SDXL"},
                                                                   {"input_blocks_8_1_transformer_blocks_9", "SDXL"}};

/// Returns the generation whose cross-attention has this context width.
std::string by_context(int64_t width) {
  switch (width) {
    case 768: return "SD 1";
    case 1024: return "SD 2";
    case 2048: return "SDXL";
    default: return "";
  }
}

/// Returns the generation of the first part in the list above that any of the names has.
template <class Names, class NameOf>
std::string by_name(const Names& all, const NameOf& name_of) {
  for (const auto& [part, generation] : names)
    for (const auto& one : all)
      if (name_of(one).find(part) != std::string_view::npos) return std::string(generation);
  return "";
}

std::string by_metadata(const std::map<std::string, std::string>& metadata) {
  constexpr std::pair<std::string_view, std::string_view> values[] = {{"sdxl", "SDXL"},
                                                                      {"stable-diffusion-xl", "SDXL"},
                                                                      {"sd_v1", "SD 1"},
                                                                      {"stable-diffusion-v1", "SD 1"},
                                                                      {"sd_v2", "SD 2"},
                                                                      {"stable-diffusion-v2", "SD 2"},
                                                                      {"stable-diffusion-3", "SD 3"},
                                                                      {"sd3", "SD 3"},
                                                                      {"flux", "FLUX"}};
  for (const char* key : {"ss_base_model_version", "modelspec.architecture"}) {
    const auto found = metadata.find(key);
    if (found == metadata.end()) continue;
    for (const auto& [part, generation] : values)
      if (found->second.find(part) != std::string::npos) return std::string(generation);
  }
  return "";
}

}  // namespace

std::string generation_of(const LoraFile& file) {
  if (const std::string told = by_metadata(file.metadata); !told.empty()) return told;
  if (const std::string told = by_name(file.changes, [](const auto& c) -> const std::string& { return c.first; }); !told.empty())
    return told;
  for (const auto& [module, change] : file.changes) {
    const at::Tensor down = change.part("lora_down");
    const bool keys = module.ends_with("attn2_to_k") || module.ends_with("attn2.to_k");
    if (const std::string told = keys && down.defined() && down.dim() == 2 ? by_context(down.size(1)) : ""; !told.empty()) return told;
  }
  return "";
}

std::string generation_of(const std::vector<Weight>& weights) {
  if (const std::string told = by_name(weights, [](const Weight& w) -> const std::string& { return w.name; }); !told.empty()) return told;
  bool words = false;
  for (const Weight& w : weights) {
    if (w.name.ends_with("attn2.to_k.weight"))
      if (const std::string told = by_context(w.tensor.size(1)); !told.empty()) return told;
    const size_t text = w.name.find("text_model.");
    words = words || text != std::string::npos;
    if (w.name.starts_with("conditioner.") && text != std::string::npos && w.name.substr(0, text).ends_with(".1.")) return "SDXL";
  }
  return words ? "SD 1" : "";
}

}  // namespace brume
