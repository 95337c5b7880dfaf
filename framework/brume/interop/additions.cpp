#include "brume/interop/additions.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/lora_file.h"
#include "brume/interop/textual_inversion.h"

namespace brume {
namespace {

bool any_has(const NamedTensors& tensors, std::string_view part) {
  return std::any_of(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name.find(part) != std::string::npos; });
}

/// Adapters that change what a network computes, by a part of the names of their tensors.
constexpr std::pair<std::string_view, std::string_view> adapters[] = {{"ip_adapter.", "IP-Adapter"},
                                                                      {"hada_w1_a", "LoHa adapter"},
                                                                      {"lokr_w1", "LoKr adapter"},
                                                                      {"dora_scale", "DoRA adapter"},
                                                                      {"lora_magnitude_vector", "DoRA adapter"},
                                                                      {"controlnet_cond_embedding.", "ControlNet"},
                                                                      {"input_hint_block.", "ControlNet"},
                                                                      {"lora_controlnet", "ControlLoRA"},
                                                                      {"motion_modules.", "motion adapter (AnimateDiff)"},
                                                                      {"adapter.body.", "T2I-Adapter"}};

/// The writer of a LoRA, by a name in it.
std::string writer_of(const std::string& name) {
  if (name.starts_with(peft_prefix)) return "PEFT's";
  if (name.starts_with("diffusion_model.") || name.starts_with("text_encoders.")) return "ComfyUI's";
  return name.starts_with("lora_") ? "kohya's" : "diffusers'";
}

Addition lora(const NamedTensors& tensors) {
  std::set<int64_t> ranks;
  std::set<std::string> parts;
  std::string writer;
  for (const NamedTensor& t : tensors) {
    if (!is_lora_matrix(t.name) || t.tensor.dim() < 2) continue;
    writer = writer_of(t.name);
    ranks.insert(std::min(t.tensor.size(0), t.tensor.size(1)));
    const std::string part = lora_module(t.name).first;
    parts.insert(part == "text_encoder." || t.name.starts_with("lora_te") ? "text encoder" : "U-Net");
  }
  return {
      "LoRA",
      fmt::format("of the {}, rank {}, with {} names; sample.lora adds it", fmt::join(parts, " and the "), fmt::join(ranks, ", "), writer),
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

}  // namespace

Addition addition_of(const std::string& path, const NamedTensors& tensors) {
  for (const auto& [part, name] : adapters)
    if (any_has(tensors, part)) return {std::string(name), "", "brume does not read it"};
  if (std::any_of(tensors.begin(), tensors.end(), [](const NamedTensor& t) { return is_lora_matrix(t.name); })) return lora(tensors);
  const auto is = [&](const char* name) {
    return std::any_of(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
  };
  const bool xl = tensors.size() == 2 && is("clip_l") && is("clip_g");
  if (!xl && !may_be_embedding(tensors)) return {};
  const Word word = read_embedding(path);
  const std::string more = xl ? fmt::format(" and {}", word.others[0].size(1)) : "";
  return {xl ? "textual inversion of two text encoders (SDXL)" : "textual inversion",
          fmt::format("{} vectors of width {}{}, the word '{}'; sample.prompts.embeddings adds it", word.vectors.size(0),
                      word.vectors.size(1), more, word.text),
          ""};
}

}  // namespace brume
