#pragma once
// A training that starts from the weights of another model (`train.from`), some of which may stay as they are (`train.freeze`).
#include <filesystem>
#include <string>

#include "brume/core/network.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/train/options.h"

namespace brume {

/// Reads a configuration as read_configuration does. If it has `train.from`, the path is looked for in `folder`, then in the current one,
/// and stands in the result as it was found; a section `model:` (`classifier:`, `autoencoder:`), a key of it, or `sample:` that is left out
/// is the source's. Throws ConfigError if the source cannot be opened, with every key of a model that is given, differs from the source's
/// and has no rule in `train.adopt`, with every tensor that does not fit the model then, and with every pattern of weights that matches
/// none of the source's.
Config read_training(Registry& registry, Value root, const std::filesystem::path& folder, Value* resolved = nullptr);

/// Returns the sections of a model's file as a configuration has them.
Value sections(const ModelCard& card);

/// Lays the section of the model in `root` over that of `stored`, a configuration with all its sections, and takes `sample:` from there if
/// `root` has none. Does nothing if `root` has no `train.from`.
void complete_model(Value& root, const Value& stored);

}  // namespace brume
