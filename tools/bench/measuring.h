#pragma once
// What the benchmarks share.
#include <fmt/format.h>
#include <unistd.h>

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

/// Says on stderr what is measured now: on a terminal in the place of what was said before, of which "" leaves nothing; else line by line.
inline void show_stage(const std::string& text) {
  const bool terminal = isatty(STDERR_FILENO) == 1;
  if (!terminal && text.empty()) return;
  fmt::print(stderr, "{}{}{}", terminal ? "\r\033[K" : "", text, terminal ? "" : "\n");
}

/// 0 of nothing.
inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace brume::tools
