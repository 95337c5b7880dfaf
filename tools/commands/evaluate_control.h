#pragma once
// brume evaluate MODEL --control FILE --control-image PREPROCESSOR --data DATA: whether images obey what steers them.
#include <string>

#include "brume/distributed/world.h"
#include "sampling/arguments.h"
#include "sampling/sampling_grid.h"

namespace brume::tools {

struct ControlEvaluation {
  std::string data, json;
  SamplingGrid grid;
  SampleArguments settings;  ///< with the model and the control
  int64_t count = 0, batch = 64;
  uint64_t seed = 0;
};

/// Steers samples by what the preprocessor makes of images of the data set, and compares it with what it makes of the samples; the same of
/// samples that nothing steers.
int evaluate_control(Program& program, const ControlEvaluation& a, World& world);

}  // namespace brume::tools
