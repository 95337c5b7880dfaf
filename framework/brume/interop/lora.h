#pragma once
// Low-rank changes to a model's weights (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models") from the files people share.
#include <string>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// Adds what a file changes to the weights of a model with a U-Net and CLIP's text encoder: W += strength (alpha / r) up down, in float32,
/// then in the type of W. `asked`: FILE, or FILE:STRENGTH; 1 if not given. Throws ConfigError naming everything of it that has no place
/// in this model or does not fit there; then nothing is changed.
void merge_lora(const std::string& asked, const std::vector<Weight>& weights);

}  // namespace brume
