#pragma once
// The section `sweep:` as it is written.
#include <optional>
#include <string>
#include <vector>

#include "brume/config/value.h"

namespace brume {

/// Keys that vary together: each row has a value per key.
struct SweepAxis {
  std::vector<std::string> keys;
  std::vector<std::vector<Value>> rows;
};

struct SweepSection {
  std::vector<SweepAxis> axes;
  std::vector<std::vector<std::string>> commands;
};

/// Reads `sweep:` of a configuration. Throws ConfigError with every mistake.
SweepSection read_sweep_section(const Value& root);

/// Splits a command into words: at spaces, but for what stands in single or double quotes. Throws ConfigError if a quote is not closed.
std::vector<std::string> words_of(const std::string& command);

}  // namespace brume
