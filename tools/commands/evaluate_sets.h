#pragma once
// brume evaluate MODEL|--images DIR --metric fid,kid: samples, or images in files, judged as a set.
#include <string>
#include <vector>

#include "brume/distributed/world.h"
#include "sampling/arguments.h"
#include "sampling/sampling_grid.h"

namespace brume::tools {

struct SetArguments {
  std::string metrics, features, images, real, shape, captions, json;
  SamplingGrid grid;
  SampleArguments settings;  ///< with the model; without one if `images` are judged
  int64_t count = 0, batch = 64, limit = 0;
  uint64_t seed = 0;
};

/// Returns true if the value of --metric names metrics of sets.
bool judges_sets(const Registry& registry, const std::string& metrics);

/// Compares sets, whose images the processes of `world` divide; rank 0 judges, prints and writes.
int evaluate_sets(Program& program, const SetArguments& a, World& world);

}  // namespace brume::tools
