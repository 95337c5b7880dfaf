#pragma once
// brume's noise schedule and parameterization as a scheduler of diffusers: the inverse of interop/import/diffusers_scheduler.h, as far as
// it goes.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "brume/config/value.h"

namespace brume {

struct DiffusersSchedulerFile {
  std::string type = "DDIMScheduler";
  nlohmann::json config;           ///< of scheduler_config.json
  std::string input = "timestep";  ///< the noise level that its pipelines pass to the network, as options of a noise embedding
  double scale = 1;
  std::vector<std::string> notes;  ///< what it does not say
};
/// Returns the scheduler that samples as the sections say. `model` and `sample`: resolved; `sample` may be empty.
DiffusersSchedulerFile to_diffusers_scheduler(const brume::Value& model, const brume::Value& sample);

}  // namespace brume
