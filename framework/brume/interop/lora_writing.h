#pragma once
// Writes adapters as the files that others read.
#include <map>
#include <string>

#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/weight_change.h"

namespace brume {

enum class LoraLayout {
  kohya,     ///< kohya's trainers and LyCORIS, for every kind: lora_unet_….lora_down.weight, .alpha
  diffusers  ///< diffusers and PEFT, for LoRA and DoRA: unet.….lora_A.weight; alphas in the metadata
};

/// What is said of an adapter in its file.
struct LoraDescription {
  std::string base_hash{};   ///< SHA-256 of the model that it changes (model_hash); "" = unknown
  std::string generation{};  ///< of that model, as generation_of() names it
  int64_t steps = 0;         ///< updates that it was trained for
  std::string triggers{};    ///< words that call what was learned, separated by commas
};

/// Returns true if the layout has names for all of the changes.
bool can_write(LoraLayout layout, const std::map<std::string, WeightChange>& changes);

/// Writes changes, by the names of the model's weights, float32 and atomically. Throws std::logic_error if the layout has no names for
/// them.
void write_lora(const std::string& path, LoraLayout layout, const std::map<std::string, WeightChange>& changes, const LoraNames& names,
                const LoraDescription& description);

/// Returns the hash of the base that the metadata of an adapter has, its own or kohya's; "" if it has none.
std::string base_hash_of(const std::map<std::string, std::string>& metadata);

}  // namespace brume
