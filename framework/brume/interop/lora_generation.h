#pragma once
// Which generation of models a LoRA file was made for, for messages.
#include <string>
#include <vector>

#include "brume/core/network.h"
#include "brume/interop/lora_file.h"

namespace brume {

/// Returns "SD 1", "SD 2", "SDXL", "SD 3", "FLUX" or "PixArt" by a file's metadata, or by its names and sizes; "" if they do not tell.
std::string generation_of(const LoraFile& file);
/// Returns the same of a model, by the names and sizes of its weights.
std::string generation_of(const std::vector<Weight>& weights);

}  // namespace brume
