#pragma once
#include <fstream>
#include <string>

namespace brume::tools {

/// High-water mark of resident memory, in MiB; `reset` starts it anew. 0 where the system does not tell.
inline double peak_memory(bool reset = false) {
  if (reset) std::ofstream("/proc/self/clear_refs") << "5";
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  return 0;
}

}  // namespace brume::tools
