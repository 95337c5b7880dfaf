#pragma once
// What kind of file tensors are of, by their names alone.
#include <string>
#include <string_view>

#include "brume/weights/tensors.h"

namespace brume {

/// Returns true if a name holds `part`.
bool any_has(const NamedTensors& tensors, std::string_view part);
/// Returns true if the tensors may be a textual inversion: one of vectors, and nothing else but numbers.
bool may_be_embedding(const NamedTensors& tensors);
/// Returns true if the tensors are a textual inversion of two text encoders (SDXL).
bool two_embeddings(const NamedTensors& tensors);
/// Returns true if one of the tensors is a matrix of a LoRA or its kin.
bool any_lora(const NamedTensors& tensors);
/// Returns the kind of a LoRA: "LoRA", "LoHa", "DoRA", ...
std::string lora_kind(const NamedTensors& tensors);

/// Returns what a file most likely is instead of what was wanted: "; it is a LoRA, which sample.lora adds". Returns "" if the names of its
/// tensors do not tell.
std::string likely_kind(const NamedTensors& tensors);

}  // namespace brume
