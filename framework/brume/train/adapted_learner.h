#pragma once
// A learner whose model stays as it is, but for adapters that are trained in addition (train.adapters).
#include <filesystem>
#include <memory>

#include "brume/train/learner.h"

namespace brume {

/// Returns a learner that trains the adapters of `config` on the weights of `learner`, which are those of `base` now. Before each loss,
/// the weights are those of the base plus what the adapters add, as merged_loras() adds it, and gradients reach the adapters alone. Throws
/// ConfigError if a target has no weight.
std::unique_ptr<Learner> adapted(std::unique_ptr<Learner> learner, const Config& config, const StoredModel& base, uint64_t seed);

/// Returns true if the learner writes files of that name in the directory of a run.
bool is_adapter(const std::filesystem::path& file);

}  // namespace brume
