#pragma once
// Runs a program to its end, and says what it wrote.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace brume::test {

struct Finished {
  int code = -1;  ///< exit code, or 128 + the signal that ended it
  std::string out, err;
};

struct Surroundings {
  std::filesystem::path folder;                       ///< the current one if empty
  std::map<std::string, std::string> variables = {};  ///< in addition to those of this process
};

/// Runs `words` (the program is looked for in PATH). BRUME_PLUGIN_PATH is not inherited. Throws if it cannot be started.
Finished run(const std::vector<std::string>& words, const Surroundings& where = {});

/// The program of this build: run_brume({"check", "a.yaml"}).
Finished run_brume(std::vector<std::string> arguments, const Surroundings& where = {});

std::string read_text(const std::filesystem::path& file);

}  // namespace brume::test
