#include "support/inception.h"

#include <ATen/core/Tensor.h>

#include <cmath>

#include "brume/core/fnv.h"
#include "brume/nn/blocks/inception.h"
#include "brume/weights/safetensors.h"

namespace brume::test {
namespace {

/// Factor and offset of a tensor's values.
std::pair<double, double> scale_of(const std::string& name, const at::Tensor& t) {
  if (name == "fc.weight") return {std::sqrt(48.0 / 2048), 0};
  if (name == "fc.bias") return {0.5, 0};
  if (t.dim() == 4) return {std::sqrt(6.0 / double(t.numel() / t.size(0))), 0};
  if (name.ends_with(".bn.weight")) return {0.25, 1};
  if (name.ends_with(".running_var")) return {0.5, 1};
  return {0.05, 0};
}

}  // namespace

double rule_value(const std::string& name, uint64_t seed, uint64_t index) {
  uint64_t z = fnv1a(name) + seed + (index + 1) * 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  z ^= z >> 31;
  return double(z >> 40) * 0x1p-23 - 1;
}

void write_inception(const std::string& path, uint64_t seed) {
  NamedTensors tensors;
  for (const Weight& w : nn::InceptionV3::layout()) {
    const auto [factor, offset] = scale_of(w.name, w.tensor);
    auto* const values = w.tensor.data_ptr<float>();
    for (int64_t i = 0; i < w.tensor.numel(); ++i) values[i] = float(rule_value(w.name, seed, uint64_t(i)) * factor + offset);
    tensors.push_back({w.name, w.tensor});
  }
  write_safetensors(path, tensors);
}

}  // namespace brume::test
