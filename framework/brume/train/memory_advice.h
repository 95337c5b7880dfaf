#pragma once
// What a training that runs out of memory can do.
#include <string>

#include "brume/core/dataset.h"
#include "brume/train/learner.h"

namespace brume {

/// Returns the error of a training that asked for more memory than there is. `asked`: as out_of_memory() returns it. Names a batch size
/// whose loss and gradient fit, found by computing them, if there is one. Discards the gradients of the learner.
std::string memory_advice(const std::string& asked, Learner& learner, const Dataset& data, const Config& config);

}  // namespace brume
