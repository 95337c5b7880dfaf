#pragma once
// The noise levels of a schedule over training time.
#include <vector>

#include "brume/core/noise_schedule.h"

namespace brume::tools {

struct NoiseLevel {
  double share;  ///< of the training times, 0 to 1
  double time, alpha, sigma, log_snr, alpha_bar;
};

/// Returns the levels at evenly spaced times, both ends included.
std::vector<NoiseLevel> noise_levels(const NoiseSchedule& schedule, int intervals = 250);

}  // namespace brume::tools
