#pragma once
// LoRA files and their kin, as kohya's trainers, LyCORIS, diffusers, PEFT and ComfyUI write them. lora_tensor_name.h has their names.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "brume/interop/weight_change.h"

namespace brume {

/// What a file holds.
struct LoraFile {
  std::map<std::string, WeightChange> changes;  ///< by the file's names of modules
  std::map<std::string, at::Tensor> biases;     ///< what is added to the bias of a module, [out]
  std::vector<std::string> unknown;             ///< tensors that belong to no LoRA
  std::map<std::string, std::string> metadata;
};

/// Reads a file, with the alphas of its metadata or of PEFT's adapter_config.json in the same folder. Warns of an `alpha_pattern` that
/// matches no module. Throws ConfigError if the file is of several adapters, or if those alphas cannot be read.
LoraFile read_lora(const std::string& path);

}  // namespace brume
