#pragma once
// What `brume plot` draws, as numbers for /api/v1/plot.
#include <cstdint>
#include <string>
#include <vector>

#include "brume/config/registry.h"

namespace brume::tools {

/// Plugins as they are written in a configuration: "ddim" or "{type: ddim, eta: 1}".
using Words = std::vector<std::string>;

/// Returns {"schedules": [{"name", "time": [...], "alpha", "sigma", "log_snr", "alpha_bar"}], "refused": [{"name", "why"}]}. Times run from
/// 0 to 1.
std::string schedules_json(const Registry& registry, const Words& schedules);

/// Returns {"spacings": [{"name", "sigma": [...], "t": [...]}], "t_min", "t_max", "refused"}: the sigmas of a run and its end, and their
/// training times, null at sigma 0. Throws ConfigError if there is no such noise schedule.
std::string spacings_json(const Registry& registry, const Words& spacings, const std::string& noise, int64_t steps);

struct SamplerPlot {
  Words samplers;
  std::string noise = "scaled_linear", spacing = "karras";
  int64_t steps = 12;
  uint64_t seed = 0;
  bool errors = false;  ///< measure the errors of 4 to 128 steps too
};

/// Returns {"samplers": [{"name", "paths": [[[x, y], ...], ...], "samples": [[x, y], ...], "calls": [...], "error": [...]}], "centres":
/// [[x, y], ...], "spread", "refused"}: the paths of points in the frame of unit variance, on a mixture of equal Gaussians. Throws
/// ConfigError if the spacing refuses the schedule, and Interrupted after Ctrl-C.
std::string samplers_json(const Registry& registry, const SamplerPlot& asked);

}  // namespace brume::tools
