#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "brume/core/noise_schedule.h"

namespace brume {

/// Chooses the sigmas of a run.
class Spacing {
 public:
  static constexpr std::string_view kind = "spacing";
  virtual ~Spacing() = default;
  /// steps + 1 sigmas, descending: those the denoiser is asked at, then where the run ends (mostly 0). Throws ConfigError
  /// where this number of steps cannot be had.
  virtual std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const = 0;
};

}  // namespace brume
