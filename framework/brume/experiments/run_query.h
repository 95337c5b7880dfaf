#pragma once
// Choosing and comparing runs.
#include <optional>
#include <string>
#include <vector>

#include "brume/experiments/run_record.h"

namespace brume {

/// What a run has under a name: name, state, step, steps, a figure ("fid", its last; "best.fid"), or a key of the configuration or the end
/// of one ("train.optimizer.lr", "lr").
struct RunValue {
  std::string text;
  std::optional<double> number = {};  ///< if it is one
};
std::optional<RunValue> value_in(const RunRecord& run, const std::string& name);

/// Keeps the runs for which every condition holds: NAME and a value with <, <=, >, >=, = or != between. A run without the name is left
/// out. Throws ConfigError if a condition is no such text, compares a text with < or >, or if no run has the name.
std::vector<RunRecord> filtered(std::vector<RunRecord> runs, const std::vector<std::string>& conditions);

/// Sorts by what the runs have under the name, numbers before texts; those without it come last. Throws ConfigError if no run has it.
void sort_by(std::vector<RunRecord>& runs, const std::string& name, bool reverse);

/// Returns the keys of the configuration that two of the runs have with different values, or one lacks.
std::vector<std::string> differing_keys(const std::vector<RunRecord>& runs);

}  // namespace brume
