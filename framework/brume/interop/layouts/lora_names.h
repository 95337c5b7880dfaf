#pragma once
// The weights of a U-Net and of CLIP's text encoder by the names that LoRA files of diffusers, PEFT and kohya's trainers have for them.
#include <map>
#include <string>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// What a module of a LoRA file changes.
struct LoraTarget {
  const Weight* weight = nullptr;  ///< null if the model has no such module
  bool part = false;               ///< only q, k or v of a weight that holds all three
};

/// Finds a model's weights by the names of their modules in LoRA files.
class LoraNames {
 public:
  /// `weights` must outlive it.
  explicit LoraNames(const std::vector<Weight>& weights);
  /// Returns the weight of a module: "unet.mid_block.attentions.0.proj_in", the same without "unet.",
  /// "lora_unet_mid_block_attentions_0_proj_in", "text_encoder.…", "lora_te_…", or CompVis' own "unet.middle_block.1.proj_in".
  LoraTarget find(const std::string& module) const;

 private:
  void add(const char* dotted, const char* flat, const std::string& name, const LoraTarget& target);

  std::map<std::string, LoraTarget> by_name_;
};

}  // namespace brume
