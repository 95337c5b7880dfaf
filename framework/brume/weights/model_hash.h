#pragma once
#include <string>

#include "brume/weights/tensors.h"

namespace brume {

/// Returns the SHA-256 that names a model: that of its file, as sha256sum prints it; of a directory, that of the names and SHA-256 of its
/// tensors. `tensors`: those of `path`.
std::string model_hash(const std::string& path, const NamedTensors& tensors);

}  // namespace brume
