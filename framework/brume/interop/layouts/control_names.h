#pragma once
// The names by which files are known that steer a model and are none.
#include <string_view>

#include "brume/weights/tensors.h"

namespace brume {

/// Returns "ControlNet", "control-LoRA", "T2I-Adapter" or "IP-Adapter", by parts of the names of the tensors; "" if it is another file.
std::string_view control_kind(const NamedTensors& tensors);

}  // namespace brume
