#pragma once
// Runs of this program in processes of their own.
#include <string>
#include <utility>
#include <vector>

namespace brume::tools {

/// Starts this program with these arguments; its output goes to the end of `log`, or to stderr if that is empty. The process has none of
/// the files of this one, and is killed when the thread that started it ends, however that ends. `threads`: of OpenMP; 0 = as the
/// surroundings say. `apart`: Ctrl-C on the terminal does not reach it. Returns its id. Throws ConfigError if no process can be started.
int start_process(const std::vector<std::string>& arguments, const std::string& log, int threads, bool apart = false);

/// Waits until one of the processes ends. Returns its id and its exit code, or 128 + the signal that ended it.
std::pair<int, int> wait_for_any();
/// Waits until this process ends, and keeps its id from being given to another.
void wait_until_ended(int process);
/// Waits until this process ends. Returns its exit code, or 128 + the signal that ended it.
int wait_for(int process);

}  // namespace brume::tools
