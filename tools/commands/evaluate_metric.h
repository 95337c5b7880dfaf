#pragma once
// brume evaluate MODEL --metric METRIC: samples judged one by one against what they were to be.
#include <string>
#include <vector>

#include "brume/distributed/world.h"
#include "sampling/arguments.h"
#include "sampling/sampling_grid.h"

namespace brume::tools {

struct MetricArguments {
  std::string metric, data, captions, json;
  SamplingGrid grid;
  SampleArguments settings;  ///< with the model
  int64_t count = 0, batch = 64;
  uint64_t seed = 0;
};

/// Judges samples, which the processes of `world` divide; rank 0 prints and writes.
int evaluate_metric(Program& program, const MetricArguments& a, World& world);

}  // namespace brume::tools
