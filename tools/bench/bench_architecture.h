#pragma once
// brume bench --arch NAME: the parts of a well-known architecture with random weights, each compared with LibTorch's own operations in one
// run.
#include <string>
#include <vector>

#include "program/program.h"

namespace brume::tools {

struct ArchitectureBench {
  std::string name, json;         ///< `name`: of tools/architectures
  int64_t rounds = 3, batch = 0;  ///< 0 = as the architecture has it
  double seconds = 6;             ///< of a part, a round and a path
  bool profile = false, errors = false;
  bool peak = false;  ///< shows operations as shares of what the processor computes at most
  Overrides overrides;
};

/// Throws ConfigError if the architecture is unknown.
int bench_architecture(const Program& program, const ArchitectureBench& asked);

}  // namespace brume::tools
