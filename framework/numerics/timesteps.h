#pragma once
// What the spacings that choose training times share.
#include <vector>

#include "config/fields.h"
#include "core/noise_schedule.h"

namespace brume {

/// Where a run ends: at sigma = 0 (a clean image), or at the schedule's smallest sigma (diffusers' set_alpha_to_one: false).
enum class FinalSigma { zero, minimum };

void declare_final(Fields& f, FinalSigma& value);

/// The sigmas at descending `times`, then the final one. Throws ConfigError where two times coincide: there are more steps
/// than training times.
std::vector<double> sigmas_at(const NoiseSchedule& schedule, const std::vector<double>& times, FinalSigma final_sigma);

/// `sigmas` (descending), then the final one.
std::vector<double> with_final(std::vector<double> sigmas, const NoiseSchedule& schedule, FinalSigma final_sigma);

}  // namespace brume
