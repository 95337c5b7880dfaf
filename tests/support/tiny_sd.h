#pragma once
// The small Stable Diffusion of shared/refs/pipe/tiny_sd as a model of brume, put together by hand.
#include <memory>
#include <string>

#include "brume/diffusion/pipeline.h"
#include "brume/train/options.h"

namespace brume::test {

/// Its configuration: DDIM at `leading` times as the folder has it, cfg at 7.5, one draw over the batch. `sample`: more of that section,
/// like "prompts: {weights: true}".
Config tiny_sd_config(const std::string& sample = "");
/// The model with its weights, in float32, not frozen.
std::unique_ptr<Pipeline> tiny_sd(const Config& config);

}  // namespace brume::test
