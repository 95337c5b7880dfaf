#pragma once
// The weights of a U-Net and of CLIP's text encoder by the names that LoRA files of diffusers, PEFT and kohya's trainers have for them.
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// What a module of a LoRA file changes.
struct LoraTarget {
  const Weight* weight = nullptr;  ///< null if the model has no such module
  bool part = false;               ///< only q, k or v of a weight that holds all three
};

constexpr std::string_view peft_prefix = "base_model.model.";

/// Returns the part of the model ("unet.", "text_encoder."; "" if the name is flat) and the name within it of a module, without what
/// programs put before it: PEFT "base_model.model.", ComfyUI "diffusion_model." and "text_encoders.clip_l.transformer.", kohya
/// "lora_te1_" for "lora_te_". A name without a part is of the text encoder if it begins with "text_model.", else of the U-Net.
std::pair<std::string, std::string> lora_module(const std::string& name);

/// Finds a model's weights by the names of their modules in LoRA files.
class LoraNames {
 public:
  /// `weights` must outlive it.
  explicit LoraNames(const std::vector<Weight>& weights);
  /// Returns the weight of a module: "unet.mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in",
  /// "text_encoder.…", "lora_te_…", CompVis' own "unet.middle_block.1.proj_in", or any name that lora_module() reads.
  LoraTarget find(const std::string& module) const;

 private:
  void add(const char* dotted, const char* flat, const std::string& name, const LoraTarget& target);

  std::map<std::string, LoraTarget> by_name_;
};

}  // namespace brume
