#include "spinning.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

namespace brume::tools {
namespace {

/// Iterations of libgomp's waiting loop before a thread sleeps; docs/performance.md has the measurements.
constexpr const char* spins = "1000";

/// The commands whose time is spent in the network. The others would only start twice as slowly.
constexpr std::array<std::string_view, 8> computing = {"train", "sample", "evaluate", "encode", "likelihood", "invert", "bench", "conform"};

bool is_traced() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "TracerPid:") return status >> word && word != "0";
  return false;
}

}  // namespace

void limit_spinning(int argc, char** argv) {
  const bool computes = std::any_of(
      argv, argv + argc, [](std::string_view word) { return std::find(computing.begin(), computing.end(), word) != computing.end(); });
  if (!computes || std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY") || is_traced()) return;
  std::error_code error;  // the file's own name, which is the process's name in `ps` as well
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error || setenv("GOMP_SPINCOUNT", spins, 1) != 0) return;
  execv(program.c_str(), argv);
  unsetenv("GOMP_SPINCOUNT");  // not started again: goes on with the default
}

}  // namespace brume::tools
