#pragma once
// The weights of one component of a diffusers directory: NAME.safetensors or NAME.bin, whole or in shards with an index
// {"weight_map": {tensor: file}}; a variant ("fp16") stands in the names: NAME.fp16.safetensors, NAME.safetensors.index.fp16.json.
#include <filesystem>
#include <string>

#include "brume/weights/tensors.h"

namespace brume {

/// Returns the tensors in `folder`, views of the mapped files. `variant`, if not empty, is what is opened; else the weights without one, or
/// the only variant there is. Throws ConfigError naming what was looked for, or what is missing of an index.
NamedTensors component_tensors(const std::filesystem::path& folder, const std::string& variant = "");

/// Returns true if there are weights of the variant.
bool has_variant(const std::filesystem::path& folder, const std::string& variant);

}  // namespace brume
