#pragma once
#include <map>
#include <string>

#include "brume/interop/weight_change.h"

namespace brume {

/// Sets the alphas that PEFT keeps outside the tensors of the file `path`, of changes by their modules: those of alpha_pattern, else
/// lora_alpha. Warns of a pattern that matches no module. Throws ConfigError if the settings cannot be read.
void set_peft_alphas(const std::string& path, const std::map<std::string, std::string>& metadata,
                     std::map<std::string, WeightChange>& changes);

}  // namespace brume
