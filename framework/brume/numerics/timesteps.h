#pragma once
// What the spacings that choose training times share.
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "brume/config/fields.h"
#include "brume/core/noise_schedule.h"
#include "brume/core/spacing.h"

namespace brume {

/// The end of a run: at sigma = 0 (a clean image), or at the schedule's smallest sigma (diffusers' set_alpha_to_one: false).
enum class FinalSigma { zero, minimum };

void declare_final(Fields& f, FinalSigma& value);
/// Declares whether the lowest level of the grid is a step of its own; if not, the grid has one more level and the lowest is left out,
/// so that the run goes from the last but one to the final sigma (DPM-Solver's way).
void declare_inclusive(Fields& f, bool& value);

/// Declares the bound of clipped_time().
void declare_clip(Fields& f, std::optional<double>& sigma_max);
/// Returns the last training time whose sigma is at most `sigma_max`, a whole number for discrete schedules; t_max without a bound
/// (the lambda clipping of DPM-Solver: lambda_min = -log sigma_max). Throws ConfigError if no time is left.
double clipped_time(const NoiseSchedule& schedule, const std::optional<double>& sigma_max);

/// The ends of a grid in sigma; those of the schedule if they are not given.
struct SigmaRange {
  std::optional<double> sigma_min, sigma_max;
  void declare(Fields& f);
  struct Ends {
    double lo, hi;
  };
  /// Throws ConfigError if lo is not less than hi.
  Ends of(const NoiseSchedule& schedule) const;
};

/// Ends of a grid that are those of another spacing's steps.
struct EndsOf {
  std::shared_ptr<const Spacing> spacing;
  void declare(Fields& f);
};

/// A grid in sigma: its ends, whether the lowest is a step, the end of the run.
struct SigmaGrid {
  SigmaRange range;
  std::optional<EndsOf> ends_of;
  bool inclusive = true;
  FinalSigma final_sigma = FinalSigma::zero;
  void declare(Fields& f);
  /// Returns the sigmas of a run, `level(r, lo, hi)` being that at the share r of the way up, 1 = hi.
  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps,
                             const std::function<double(double r, double lo, double hi)>& level) const;
};

/// Throws ConfigError naming the first sigma that is outside the schedule's, by more than rounding; `name` is what it is called.
void require_within(const NoiseSchedule& schedule, const std::vector<double>& sigmas, const char* name = "sigma");

/// Returns `levels` resampled to `count` of them, evenly in place and linearly in their logarithm.
std::vector<double> log_interpolated(const std::vector<double>& levels, int64_t count);

/// Returns the sigmas at descending `times`, then the final one. Throws ConfigError if two times coincide: there are more steps
/// than training times.
std::vector<double> sigmas_at(const NoiseSchedule& schedule, const std::vector<double>& times, FinalSigma final_sigma);

/// Returns `sigmas` without those that repeat the one before: a step between equal levels goes nowhere, and solvers divide by its length.
/// The last, where the run ends, stays: every sampler bears a last step that stands still.
std::vector<double> distinct_levels(std::vector<double> sigmas);

/// Declares what happens to levels that coincide.
void declare_merge(Fields& f, bool& value);
/// Returns `sigmas`, with the final one, without those that repeat the one before if `merge` is true; throws ConfigError otherwise.
std::vector<double> merged_levels(std::vector<double> sigmas, bool merge);

/// Returns `sigmas` (descending), then the final one.
std::vector<double> with_final(std::vector<double> sigmas, const NoiseSchedule& schedule, FinalSigma final_sigma);

}  // namespace brume
