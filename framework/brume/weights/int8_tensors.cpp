#include "brume/weights/int8_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/errors.h"

namespace brume {

Int8Tensors int8_in(const std::string& source, const NamedTensors& tensors) {
  Int8Tensors result;
  const auto refuse = [&](const NamedTensor& scales, const std::string& why) {
    throw ConfigError(fmt::format("{}: '{}' [{}] {}", source, scales.name, fmt::join(scales.tensor.sizes(), ", "), why));
  };
  for (const NamedTensor& t : tensors) {
    if (!t.name.ends_with(int8_scale_suffix)) continue;
    const std::string name = t.name.substr(0, t.name.size() - int8_scale_suffix.size());
    const auto of = std::find_if(tensors.begin(), tensors.end(), [&](const NamedTensor& other) { return other.name == name; });
    if (of == tensors.end()) refuse(t, "has scales of a tensor that is not there");
    if (of->tensor.scalar_type() != at::kChar || of->tensor.dim() < 2)
      refuse(t, fmt::format("has scales of '{}', which is a {} with {} and no weight of int8", name, at::toString(of->tensor.scalar_type()),
                            counted(of->tensor.dim(), "dimension")));
    if (!t.tensor.is_floating_point() || t.tensor.dim() != 1 || t.tensor.size(0) != of->tensor.size(0))
      refuse(t, fmt::format("has to be {} floats, one for each output channel of '{}'", of->tensor.size(0), name));
    result.weights.emplace(name, Int8Values{of->tensor, t.tensor.to(at::kFloat)});
  }
  for (const NamedTensor& t : tensors)
    if (!t.name.ends_with(int8_scale_suffix) && !result.weights.contains(t.name)) result.others.push_back(t);
  return result;
}

NamedTensors without_int8(const std::string& source, NamedTensors tensors) {
  Int8Tensors found = int8_in(source, tensors);
  if (found.weights.empty()) return tensors;
  for (const auto& [name, values] : found.weights) found.others.push_back({name, from_int8(values)});
  return std::move(found.others);
}

NamedTensors int8_tensors(const std::string& name, const Int8Values& values) {
  return {{name, values.values}, {name + std::string(int8_scale_suffix), values.scales}};
}

}  // namespace brume
