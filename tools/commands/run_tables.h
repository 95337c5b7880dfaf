#pragma once
// Runs as tables.
#include <string>
#include <vector>

#include "brume/experiments/run_record.h"

namespace brume::tools {

struct RunTable {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};

/// Returns a row per run: its name and state, the keys of the configuration that differ, steps, the time if `times`, the last and best
/// of the losses, tests and evaluations. Without times, two trainings with the same bits give the same table.
RunTable table_of(const std::vector<RunRecord>& runs, bool times);

/// Returns what differs between two runs: keys of the configuration, steps and figures, but for those of the machine.
RunTable differences_of(const RunRecord& a, const RunRecord& b);

std::string as_text(const RunTable& table);
std::string as_csv(const RunTable& table);
std::string as_markdown(const RunTable& table);

}  // namespace brume::tools
