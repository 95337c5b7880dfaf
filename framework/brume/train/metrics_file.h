#pragma once
// RUN/metrics.jsonl: a JSON object per line.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "brume/train/optimization.h"

namespace brume {

/// A line of the file.
struct MetricsLine {
  int64_t step = 0;    ///< updates so far
  bool test = false;   ///< figures of images that are not trained on
  Metrics figures{};   ///< those that are numbers, without the step
  std::string text{};  ///< the line as it stands, without its end
};

/// Returns the lines in their order; none if there is no file. Leaves out what is no JSON object, half-written lines, and lines whose step
/// is no integer.
std::vector<MetricsLine> read_metrics(const std::filesystem::path& file);

/// Returns true if the file has the figures of a test after `step`.
bool has_test(const std::filesystem::path& file, int64_t step);

/// Removes the lines of later steps: those of a future that is not taken.
void trim_metrics(const std::filesystem::path& file, int64_t step);

}  // namespace brume
