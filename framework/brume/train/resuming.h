#pragma once
// What may change where a training is continued: how it learns, and not what learns.
#include <filesystem>
#include <string>

#include "brume/config/value.h"

namespace brume {

/// Compares the configuration a training was left with and the one it is to go on with, both resolved. Throws ConfigError with every key of
/// `model:`, `classifier:` or `autoencoder:` that differs: the weights would be taken for what they are not. Says in one line what else
/// differs, "train.batch 64 -> 32, ..."; "" where nothing does. `given`: the tree that was read, which knows where a value stands.
std::string changes_since(const Value& stored, const Value& resolved, const Value& given);

}  // namespace brume
