#pragma once
// Several ways of sampling one model, which `brume evaluate` compares.
#include <optional>
#include <string>
#include <vector>

#include "brume/diffusion/options.h"
#include "brume/model.h"

namespace brume::tools {

/// Several ways of sampling one model, each combined with each. An empty list: as the request says.
struct SamplingGrid {
  std::vector<std::string> samplers;  ///< each a name, or {type: ddim, eta: 1}
  std::vector<double> cfg;
  std::vector<int64_t> steps;
  std::vector<int64_t> calls;  ///< instead of steps: budgets of calls of the guided denoiser
};

struct SamplingRun {
  std::string name;  ///< what tells it from the others, "ddim, cfg 2, 50 steps"; "samples" if it is the only one
  SampleOptions options;
  std::string sampler{};        ///< as the grid names it; empty = as the request says
  std::optional<double> cfg{};  ///< the same
  int64_t calls = 0;            ///< that the run makes, counted; 0 = the grid has no budget of calls
};
/// Returns the runs of a grid: the samplers, for each the scales of cfg, for each the numbers of steps or the budgets of calls. A budget
/// becomes the largest number of steps whose calls fit. Throws ConfigError naming --calls if no step fits, or if the sampler chooses the
/// number of its steps.
std::vector<SamplingRun> sampling_runs(const Model& model, const ImageRequest& request, const SamplingGrid& grid);

/// Returns "50 steps", or "10 to 50 steps".
std::string steps_of(const std::vector<SamplingRun>& runs);

}  // namespace brume::tools
