#pragma once
// The weights that an adapter changes.
#include <string>
#include <vector>

#include "brume/core/adapter.h"

namespace brume {

/// Returns the matrices and convolutions of the network and of CLIP's text encoders that an adapter names, in the order of `weights`.
/// `path` names the adapter in messages ("train.adapters.0"). Throws ConfigError with every target that has no weight.
std::vector<Weight> adapter_targets(const Adapter& adapter, const std::vector<Weight>& weights, const std::string& path);

}  // namespace brume
