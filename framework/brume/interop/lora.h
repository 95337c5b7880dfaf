#pragma once
// Changes to a model's weights from the files people share: LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models") and
// its kin (weight_change.h).
#include <map>
#include <string>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// Returns the weights that files change, by name: W plus what each file adds to the W of the model, summed in float32 in the order of the
/// files, then cast once to `type`. A strength of 0 adds nothing. `asked`: see lora_strength.h. Throws ConfigError naming everything of a
/// file that has no place in this model or does not fit there.
std::map<std::string, Tensor> merged_loras(const std::vector<std::string>& asked, const std::vector<Weight>& weights, at::ScalarType type);

}  // namespace brume
