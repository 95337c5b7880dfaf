#pragma once
// A model's weights from a file.
#include <string>
#include <vector>

#include "core/network.h"

namespace brume {

/// Copies the file's tensors (safetensors or a PyTorch state dict) into `weights` by name, whatever floating type they are stored in.
/// Throws ConfigError naming every tensor that is missing, unknown or of another shape; then nothing is copied.
void load_weights(const std::string& path, const std::vector<Weight>& weights);

}  // namespace brume
