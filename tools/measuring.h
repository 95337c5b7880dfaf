#pragma once
// What the benchmarks share.
#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

namespace brume::tools {

/// High-water mark of resident memory, in MiB; `reset` starts it anew. 0 where the system does not tell.
inline double peak_memory(bool reset = false) {
  if (reset) std::ofstream("/proc/self/clear_refs") << "5";
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  return 0;
}

/// 0 of nothing.
inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace brume::tools
