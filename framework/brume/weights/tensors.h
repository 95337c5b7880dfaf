#pragma once
// Tensors by name, in the order of their file: what every weights reader returns and every writer takes.
#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

namespace brume {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

using NamedTensors = std::vector<NamedTensor>;

/// Returns the tensor called `name`, or nullptr. A linear search: build a map to look up many.
inline const at::Tensor* find(const NamedTensors& tensors, std::string_view name) {
  for (const auto& entry : tensors) {
    if (entry.name == name) return &entry.tensor;
  }
  return nullptr;
}

}  // namespace brume
