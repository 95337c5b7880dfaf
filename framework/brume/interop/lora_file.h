#pragma once
// LoRA files as kohya's trainers, diffusers, PEFT and ComfyUI write them.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "brume/weights/tensors.h"

namespace brume {

/// The change of one weight: (alpha / r^rank_power) up down.
struct LoraChange {
  at::Tensor down, up;  ///< [r, in] or [r, in, k, k]; [out, r] or [out, r, 1, 1]
  at::Tensor mid;       ///< [r, r, k, k] of a CP decomposition; undefined for most
  double alpha = 0, rank_power = 1;
  bool has_alpha = false;  ///< false: alpha = r

  double scale() const;
  /// Returns [out, in] or [out, in, k, k].
  std::vector<int64_t> shape() const;
  /// Returns true if the product has the size of `weight`.
  bool fits(const at::Tensor& weight) const;
  /// Returns up down, float32, of any shape with that number of values.
  at::Tensor product() const;
};

/// What a file holds.
struct LoraFile {
  std::map<std::string, LoraChange> changes;  ///< by the file's names of modules
  std::vector<std::string> unknown;           ///< tensors that belong to no LoRA
};

/// Returns true if a tensor of this name is a matrix of a LoRA.
bool is_lora_matrix(std::string_view name);

/// Reads a file, with the alphas of its metadata or of PEFT's adapter_config.json in the same folder. Warns of an `alpha_pattern` that
/// matches no module. Throws ConfigError if the file is of several adapters, or if those alphas cannot be read.
LoraFile read_lora(const std::string& path);

}  // namespace brume
