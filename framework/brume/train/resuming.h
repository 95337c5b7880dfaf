#pragma once
// What may change when a training is continued: how it learns, and not what learns.
#include <filesystem>
#include <string>

#include "brume/config/value.h"

namespace brume {

/// Compares the stored configuration of a training with the one that it is resumed with, both resolved. Throws ConfigError with every key
/// of `model:`, `classifier:` or `autoencoder:` that differs, and with those that say which optimizer updates which weight. Returns the
/// other differences in one line, "train.batch 64 -> 32, ..."; "" if there is no difference. `given`: the tree that was read, with the
/// places of its values.
std::string changes_since(const Value& stored, const Value& resolved, const Value& given);

}  // namespace brume
