#pragma once
// RUN/metrics.jsonl: a JSON object per line.
#include <cstdint>
#include <filesystem>

namespace brume {

/// Returns true if the file has the figures of a test after `step`.
bool has_test(const std::filesystem::path& file, int64_t step);

/// Removes the lines of later steps: those of a future that is not taken.
void trim_metrics(const std::filesystem::path& file, int64_t step);

}  // namespace brume
