#pragma once
// The noise levels of a run.
//
// How to write one:
//   1. Derive a final class from Spacing with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `sigmas()`: steps + 1 descending numbers within the schedule's range, the last mostly 0.
//   3. Throw ConfigError naming the number of steps if it cannot be had.
//   4. Use numerics/timesteps.h for grids of training times or of sigma.
//   5. Put it into plugins/schedulers/spacing/NAME.cpp, which ends with `register_spacing_NAME`.
//   6. Read plugins/schedulers/spacing/karras.cpp as an example; `brume new spacing NAME` writes another.
//   7. Run test_contracts --gtest_filter='*Spacing*NAME*' (tests/contracts/spacing_test.cpp), and `brume conform spacing NAME`.
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
  /// Returns steps + 1 sigmas, descending: those at which the denoiser is called, then the end of the run (mostly 0). An option may ask
  /// for more steps (`fill` of leading). Throws ConfigError if this number of steps cannot be had.
  virtual std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const = 0;
};

}  // namespace brume
