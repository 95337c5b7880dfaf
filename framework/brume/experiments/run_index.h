#pragma once
// The records of many runs, kept in an SQLite file so that only runs that changed are read again.
#include <filesystem>
#include <vector>

#include "brume/experiments/run_record.h"

namespace brume {

/// The name of the index in the directory that is listed.
inline constexpr const char* run_index_name = ".brume-runs.sqlite";

/// Returns the records of all runs in a directory, sorted by name: from the index those whose files have the sizes and times that it
/// noted, the others from the runs. Brings the index up to date; one that is damaged, or of another version, is made again. Works without
/// an index if the directory cannot be written. Throws ConfigError if there is no such directory.
std::vector<RunRecord> list_runs(const std::filesystem::path& directory);

}  // namespace brume
