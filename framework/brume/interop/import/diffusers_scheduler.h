#pragma once
// A scheduler of diffusers in brume's words: noise schedule, parameterization, sampler, spacing, and what of the guidances belongs to it.
#include <cstdint>
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/interop/import/diffusers_config.h"

namespace brume {

/// The parts of a configuration that the scheduler decides.
struct DiffusersScheduler {
  Value noise, parameterization, sampler, spacing;
  std::vector<Value> guidance;  ///< clip or dynamic_threshold
  bool learned_range = false;   ///< the network predicts the variance as well
  std::string start = "schedule", timestep_rounding = "exact";
  Value noise_embedding = Value::map();  ///< options of the network's noise embedding, {input: quarter_log}; empty: the timestep
  bool unit_range = false;               ///< images are in [0, 1]
  std::vector<std::string> losses;

  /// Returns the section `sample` of a pipeline with so many steps; its guidances are `before`, then those of the scheduler.
  Value sample(int64_t steps, std::vector<Value> before) const;
};

/// Reads a scheduler_config.json. `stable_diffusion`: its pipelines force steps_offset to 1 and clip_sample to false. `steps`: those of the
/// run, whose losses are wanted; 0 = any. Throws ConfigError naming what it says that brume cannot be.
DiffusersScheduler read_diffusers_scheduler(const DiffusersConfig& config, bool stable_diffusion, int64_t steps = 0);

}  // namespace brume
