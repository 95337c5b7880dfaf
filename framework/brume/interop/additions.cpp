#include "brume/interop/additions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>
#include <string_view>

#include "brume/config/counted.h"
#include "brume/interop/layouts/addition_kind.h"
#include "brume/interop/layouts/control_names.h"
#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/layouts/lora_tensor_name.h"
#include "brume/interop/textual_inversion.h"

namespace brume {
namespace {

/// Returns the writer of a LoRA, by a name in it.
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
    const auto name = lora_tensor_name(t.name);
    if (!name || name->role == "alpha") continue;
    writer = writer_of(t.name);
    const bool ranked = name->role == "lora_down" || name->role == "hada_w1_b" || name->role == "lokr_w2_b" || name->role == "lokr_w1_b";
    if (ranked && t.tensor.dim() > 1) ranks.insert(t.tensor.size(0));
    const std::string part = lora_module(t.name).first;
    parts.insert(part.starts_with("text_encoder") || t.name.starts_with("lora_te") ? "text encoder" : "U-Net");
  }
  return {lora_kind(tensors),
          fmt::format("of the {}{}, with {} names; sample.lora adds it", fmt::join(parts, " and the "),
                      ranks.empty() ? "" : fmt::format(", rank {}", fmt::join(ranks, ", ")), writer),
          ""};
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

}  // namespace brume
