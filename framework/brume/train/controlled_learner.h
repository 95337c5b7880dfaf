#pragma once
// A learner whose model stays as it is, but for a ControlNet that steers it and is trained (model.control).
#include <memory>

#include "brume/train/learner.h"

namespace brume {

/// Returns a learner that trains the control of `config` on the model of `learner`, which has the weights of `base` now. The control begins
/// as a copy of the network's encoder, with zero convolutions of 0, and sees what a preprocessor makes of the training images. Throws
/// ConfigError if the network takes none, or if it does not fit the latents.
std::unique_ptr<Learner> controlled(std::unique_ptr<Learner> learner, const Config& config, const StoredModel& base, uint64_t seed);

/// The file of the control in the directory of a run.
inline constexpr const char* control_file = "control.safetensors";

}  // namespace brume
