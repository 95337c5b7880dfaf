#pragma once
// A training that starts from the weights of another model (`train.from`), some of which may stay as they are (`train.freeze`).
#include <filesystem>
#include <string>

#include "brume/core/network.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/train/options.h"

namespace brume {

/// Reads a configuration as read_configuration does. If it has `train.from`, the path is looked for in `folder`, then in the current one,
/// and stands in the result as it was found; a section `model:` (`classifier:`, `autoencoder:`) that is left out is the source's, and so is
/// `sample:` then. Throws ConfigError if the source cannot be opened, with every key of a model that is given and differs from the
/// source's, and with every pattern of `train.freeze` that matches none of the source's weights. No weights are read.
Config read_training(Registry& registry, Value root, const std::filesystem::path& folder, Value* resolved = nullptr);

/// Returns the sections of a model's file as a configuration has them.
Value sections(const ModelCard& card);

/// Copies the section of the model from `stored`, a configuration with all its sections, and `sample:` with it, if `root` has `train.from`
/// and no section of a model.
void complete_model(Value& root, const Value& stored);

}  // namespace brume
