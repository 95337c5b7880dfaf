#pragma once
// The weights of a U-Net and of CLIP's text encoder by the names that diffusers and kohya's trainers have for them.
#include <map>
#include <string>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// Knows the modules of a model from the names of its weights, which are CompVis' (input_blocks, middle_block, output_blocks).
class DiffusersNames {
 public:
  /// `weights` must outlive it.
  explicit DiffusersNames(const std::vector<Weight>& weights);
  /// The weight of a module: "unet.mid_block.attentions.0.proj_in", the same without "unet.", "lora_unet_mid_block_attentions_0_proj_in",
  /// "text_encoder.…", "lora_te_…", or CompVis' own "unet.middle_block.1.proj_in". Null where there is none.
  const Weight* find(const std::string& module) const;

 private:
  std::map<std::string, const Weight*> by_name_;
};

}  // namespace brume
