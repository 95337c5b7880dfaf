#pragma once
// What the benchmarks share.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "brume/config/number.h"

namespace brume::tools {

/// Returns the high-water mark of resident memory in MiB, and with `reset` sets it back to the present memory. Returns 0 if the system does
/// not report it.
inline double peak_memory(bool reset = false) {
  if (reset) std::ofstream("/proc/self/clear_refs") << "5";
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) {
      std::string_view rest(line);
      rest.remove_prefix(std::min(rest.find_first_of("0123456789"), rest.size()));
      return take_number<double>(rest).value_or(0) / 1024;
    }
  return 0;
}

/// Prints to stderr what is measured now: on a terminal over the previous text, which "" erases; else line by line.
inline void show_stage(const std::string& text) {
  const bool terminal = isatty(STDERR_FILENO) == 1;
  if (!terminal && text.empty()) return;
  fmt::print(stderr, "{}{}{}", terminal ? "\r\033[K" : "", text, terminal ? "" : "\n");
}

/// Returns the median; 0 of nothing.
inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace brume::tools
