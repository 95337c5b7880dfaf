#pragma once
// The schedulers of diffusers whose noise levels are no table of betas: EDM's, those of consistency models and of flow matching.
#include <optional>
#include <string>
#include <vector>

#include "brume/interop/import/diffusers_scheduler.h"

namespace brume {

/// Reads a scheduler_config.json of one of these classes; nothing if it is of another. Throws ConfigError naming what it says that
/// brume cannot be.
std::optional<DiffusersScheduler> read_continuous_scheduler(const DiffusersConfig& config);
const std::vector<std::string>& continuous_schedulers();

/// Returns the sampler of DPM-Solver's multistep and singlestep classes. `data` and `noise` name brume's samplers for algorithms that
/// predict the image and the noise.
Value dpm_solver(const DiffusersConfig& config, const char* data, const char* noise, bool singlestep);
/// Returns solver_type: one of `known`, or `usual` if the file has another class's.
std::string solver_type(const DiffusersConfig& config, const std::vector<std::string>& known, const std::string& usual);
/// Returns the guidance of `thresholding`.
Value dynamic_threshold(const DiffusersConfig& config);

}  // namespace brume
