#include "sampling/sampling_grid.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/conform/equal_calls.h"
#include "brume/diffusion/guided_denoiser.h"
#include "brume/diffusion/pipeline.h"
#include "brume/numerics/timesteps.h"

namespace brume::tools {
namespace {

/// Returns the steps within a budget of calls on the model's noise levels. The calls are counted on an exact denoiser: how many a sampler
/// makes depends on its levels alone, and all evaluations that a guidance needs are one call of the guided denoiser.
StepsWithin steps_of_budget(const Model& model, const SampleOptions& options, int64_t budget, const std::string& sampler) {
  if (options.sampler->traits().own_count)
    throw ConfigError(
        fmt::format("--calls {}: {} chooses the number of its steps by a tolerance; evaluate it without --calls", budget, sampler));
  const NoiseSchedule& schedule = *model.pipeline().options().noise;
  const ImageShape latent = model.pipeline().latent();
  const StepLevels levels = [&](int64_t steps) { return distinct_levels(sigmas_for(*options.spacing, latent, schedule, steps)); };
  const StepsWithin within = steps_within(*options.sampler, levels, schedule, budget);
  if (within.steps == 0) throw ConfigError(fmt::format("--calls {}: is too small for {}, whose first step makes more", budget, sampler));
  return within;
}

/// How long a run is; nothing: as the request says.
struct Length {
  std::optional<int64_t> steps{}, budget{};
};

std::vector<Length> lengths_of(const SamplingGrid& grid) {
  std::vector<Length> all;
  for (const int64_t budget : grid.calls) all.push_back({.budget = budget});
  for (const int64_t steps : grid.steps) all.push_back({.steps = steps});
  if (all.empty()) all.emplace_back();
  return all;
}

}  // namespace

std::vector<SamplingRun> sampling_runs(const Model& model, const ImageRequest& request, const SamplingGrid& grid) {
  const auto choices = [](const auto& values, auto none) {
    std::vector<std::optional<std::decay_t<decltype(none)>>> all(values.begin(), values.end());
    if (all.empty()) all.emplace_back();
    return all;
  };
  std::vector<SamplingRun> runs;
  for (const auto& sampler : choices(grid.samplers, std::string()))
    for (const auto& cfg : choices(grid.cfg, 0.0))
      for (const Length& length : lengths_of(grid)) {
        ImageRequest r = request;
        std::vector<std::string> name;
        if (sampler) r.sampler = *sampler;
        if (cfg) r.cfg = cfg;
        if (length.steps) r.steps = length.steps;
        SamplingRun run{{}, model.sampling(r), sampler.value_or(""), cfg};
        if (grid.samplers.size() > 1) name.push_back(*sampler);
        if (cfg) name.push_back(fmt::format("cfg {}", *cfg));
        if (grid.steps.size() > 1) name.push_back(counted(*length.steps, "step"));
        if (length.budget) {
          const StepsWithin within = steps_of_budget(model, run.options, *length.budget, sampler.value_or("the model's sampler"));
          r.steps = within.steps;
          run.options = model.sampling(r);
          run.calls = within.calls;
          name.insert(name.end(), {counted(within.steps, "step"), counted(within.calls, "call")});
        }
        run.name = name.empty() ? "samples" : fmt::format("{}", fmt::join(name, ", "));
        runs.push_back(std::move(run));
      }
  return runs;
}

std::string steps_of(const std::vector<SamplingRun>& runs) {
  const auto [least, most] =
      std::minmax_element(runs.begin(), runs.end(), [](const auto& a, const auto& b) { return a.options.steps < b.options.steps; });
  const int64_t few = least->options.steps, many = most->options.steps;
  return few == many ? counted(few, "step") : fmt::format("{} to {}", few, counted(many, "step"));
}

}  // namespace brume::tools
