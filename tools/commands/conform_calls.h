#pragma once
// brume conform sampler --calls 8,16,32: samplers at equal numbers of network calls.
#include <string>
#include <vector>

#include "program/program.h"

namespace brume::tools {

struct CallBudgets {
  std::vector<int64_t> calls;
  bool markdown = false, json = false;
};

/// Prints, for each sampler (a name, or {type: ddim, eta: 1}), the steps that fit into each budget and the error of their samples.
int conform_calls(const Program& program, const std::vector<std::string>& samplers, const CallBudgets& budgets);

}  // namespace brume::tools
