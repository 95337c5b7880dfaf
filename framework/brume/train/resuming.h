#pragma once
// What may change when a training is continued: how it learns, and not what learns.
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "brume/config/value.h"
#include "brume/train/options.h"

namespace brume {
class ModelMetadata;

/// The configuration that a training goes on with.
struct Resumed {
  Config config;
  Value resolved;
  std::string changes;  ///< what differs from the stored configuration, as changes_since() says it
};

/// Reads the configuration with which the training of `file` goes on: `given`, completed by the stored section of the model if it has none,
/// or without it the stored one; `change` alters it before it is read. Plugin libraries that the stored configuration names are not loaded.
/// Throws ConfigError as changes_since() does, and if `file` is no training file.
Resumed read_resumed(Registry& registry, const std::filesystem::path& file, const std::optional<Value>& given,
                     const std::function<void(Value&)>& change = {});

/// Compares the stored configuration of a training with the one that it is resumed with, both resolved. Throws ConfigError with every key
/// of `model:`, `classifier:` or `autoencoder:` that differs, and with those that say which optimizer updates which weight. Returns the
/// other differences in one line, "train.batch 64 -> 32, ..."; "" if there is no difference. `given`: the tree that was read, with the
/// places of its values.
std::string changes_since(const Registry& registry, const Value& stored, const Value& resolved, const Value& given);

/// Throws ConfigError naming `file` if its metadata are not those of a training file.
void check_training(const ModelMetadata& metadata, const std::filesystem::path& file);

}  // namespace brume
