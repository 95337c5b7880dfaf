#pragma once
// The runs of a folder, as the answers of /api/v1/runs.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace brume::tools {

/// Returns {"runs": [...]}: name, state, step, steps, note, figures (last, best) and the steps of the sample grids of each, sorted by name;
/// and "differing": the keys of the configuration in which they differ. None if there is no such folder.
std::string runs_json(const std::filesystem::path& folder);

/// Returns the directory of a run, or nothing if the folder has no run of this name: a name is never a path outside the folder.
std::optional<std::filesystem::path> run_directory(const std::filesystem::path& folder, const std::string& name);

/// Returns the record of a run with its evaluations, "configuration" (keys and values), "yaml" (config.yaml as it stands) and "grids" (the
/// steps of samples/step_*.png).
std::string run_json(const std::filesystem::path& run, const std::string& name);

/// Returns the figures of metrics.jsonl by columns: {"step": last, "figures": {"loss": {"step": [...], "value": [...]}}}, those after step
/// `after` alone. Figures that are not finite are null.
std::string metrics_json(const std::filesystem::path& run, int64_t after);

/// Returns the sample grid of a step, or nothing if the run has no grid of that step.
std::optional<std::filesystem::path> grid_file(const std::filesystem::path& run, int64_t step);

}  // namespace brume::tools
