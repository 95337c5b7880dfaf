#pragma once
// brume evaluate MODEL --metric METRIC: samples judged one by one against what they were to be.
#include <string>
#include <vector>

#include "sampling/model_source.h"

namespace brume::tools {

struct MetricArguments {
  std::string source, metric, data, captions, json;
  std::vector<std::string> cfg;
  SampleSettings settings;
  int64_t count = 0, batch = 64;
  uint64_t seed = 0;
};

int evaluate_metric(Program& program, const MetricArguments& a);

}  // namespace brume::tools
