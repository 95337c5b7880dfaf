#pragma once
// The schedulers of diffusers whose noise levels are no table of betas: EDM's, those of consistency models and of flow matching.
#include <optional>
#include <string>
#include <vector>

#include "brume/interop/import/diffusers_scheduler.h"

namespace brume {

/// Reads a scheduler_config.json of one of these classes; nothing where it is of another. Throws ConfigError naming what it says that
/// brume cannot be.
std::optional<DiffusersScheduler> read_continuous_scheduler(const DiffusersConfig& config);
const std::vector<std::string>& continuous_schedulers();

/// Of DPM-Solver's multistep and singlestep classes: the sampler as YAML. `data` and `noise`: brume's, for algorithms that predict them.
std::string dpm_solver(const DiffusersConfig& config, const char* data, const char* noise, bool singlestep);
/// solver_type: one of `known`, or `usual` where the file has another class's.
std::string solver_type(const DiffusersConfig& config, const std::vector<std::string>& known, const std::string& usual);
/// The guidance of `thresholding`, as YAML; `more`: options beside it.
std::string dynamic_threshold(const DiffusersConfig& config, const std::string& more = "");

}  // namespace brume
