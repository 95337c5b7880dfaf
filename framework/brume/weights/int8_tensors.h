#pragma once
// Weights of eight bits in a file: the integers under the weight's own name, and a scale for each output channel under that name with a
// suffix (core/int8_values.h).
#include <map>
#include <string>
#include <string_view>

#include "brume/core/int8_values.h"
#include "brume/weights/tensors.h"

namespace brume {

inline constexpr std::string_view int8_scale_suffix = ".int8_scale";

/// The integers of a file by the names of their weights, and its other tensors.
struct Int8Tensors {
  std::map<std::string, Int8Values> weights;
  NamedTensors others;
};

/// Returns views of the tensors. Throws ConfigError naming `source` if scales lack their integers, do not fit them or are not floats.
Int8Tensors int8_in(const std::string& source, const NamedTensors& tensors);

/// Returns the tensors, those of integers with scales as float32 numbers. Throws ConfigError as int8_in does.
NamedTensors without_int8(const std::string& source, NamedTensors tensors);

/// Returns the tensors that hold integers in a file: the weight, and its scales.
NamedTensors int8_tensors(const std::string& name, const Int8Values& values);

}  // namespace brume
