#pragma once
// One HTML page about the runs in a directory.
#include <filesystem>
#include <string>
#include <vector>

#include "brume/experiments/run_record.h"

namespace brume::tools {

/// Returns a page that needs no other file: the table of runs, the curves of all, sample grids by step, configurations and what differs,
/// evaluations and plots of quality against sampling steps and guidance scale. `directories`: of the runs, in their order.
std::string report_page(const std::string& title, const std::vector<RunRecord>& runs,
                        const std::vector<std::filesystem::path>& directories);

}  // namespace brume::tools
