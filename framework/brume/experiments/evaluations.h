#pragma once
// The JSON files that `brume evaluate --json` and `brume likelihood --json` wrote into a run directory.
#include <filesystem>
#include <vector>

#include "brume/experiments/run_record.h"

namespace brume {

/// Returns the sets of every *.json file, in the order of their names. Leaves out files that hold no figures, the real images and the
/// baseline.
std::vector<Evaluation> read_evaluations(const std::filesystem::path& run);

}  // namespace brume
