#pragma once
// Runs of this program in processes of their own.
#include <string>
#include <utility>
#include <vector>

namespace brume::tools {

/// Starts this program with these arguments; its output goes to the end of `log`, or to stderr if that is empty. The process is killed
/// when this one ends, however that ends. `threads`: of OpenMP; 0 = as the surroundings say. Returns its id. Throws ConfigError if
/// no process can be started.
int start_process(const std::vector<std::string>& arguments, const std::string& log, int threads);

/// Waits until one of the processes ends. Returns its id and its exit code, or 128 + the signal that ended it.
std::pair<int, int> wait_for_any();

}  // namespace brume::tools
