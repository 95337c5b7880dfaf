#pragma once
// Models whose inner layers multiply eight-bit integers.
#include <string>

#include "brume/diffusion/compute.h"
#include "brume/weights/tensors.h"

namespace brume {

/// Returns the options with the precision of a model's file, if they leave it to the file: int8 for weights of int8, on the CPU. Warns if
/// int8 is asked for and the file does not say which layers lose by it.
ComputeOptions with_int8(ComputeOptions options, const std::string& file, const NamedTensors& tensors);

}  // namespace brume
