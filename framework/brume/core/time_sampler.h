#pragma once
// The noise levels of a training step.
//
// How to write one:
//   1. Derive a final class from TimeSampler with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `draw()`: one sigma per image, within the schedule's range, from `random` alone.
//   3. Return weights of mean 1 that undo an uneven draw, if the expectation of the loss is to stay.
//   4. Keep what lasts from step to step in `memory()` and update it in `learn()`.
//   5. Put it into plugins/time_samplers/NAME.cpp, which ends with `register_time_sampler_NAME`.
//   6. Read plugins/time_samplers/log_normal.cpp as an example; `brume new time_sampler NAME` writes another.
//   7. Run test_contracts --gtest_filter='*TimeSampler*NAME*' (tests/contracts/time_sampler_test.cpp).
#include <string_view>
#include <vector>

#include "brume/core/network.h"
#include "brume/core/noise_schedule.h"

namespace at {
struct Generator;
}

namespace brume {

/// Draws one noise level per image. A value: what it keeps from step to step is in `memory`, which belongs to the training.
class TimeSampler {
 public:
  static constexpr std::string_view kind = "time_sampler";

  struct Draw {
    std::vector<double> sigmas;   ///< within the schedule's range
    std::vector<double> weights;  ///< of the losses, of mean 1: they undo an uneven draw
  };

  virtual ~TimeSampler() = default;
  /// Returns `count` draws. `memory`: as memory() made it and learn() left it; `random`: a CPU generator, the only source of numbers.
  virtual Draw draw(const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>& memory, at::Generator& random) const = 0;
  /// Returns new tensors for a training on this schedule, which checkpoints save; empty if nothing is kept.
  virtual std::vector<Weight> memory(const NoiseSchedule&) const { return {}; }
  /// Updates `memory` from the loss of each image, [B], before weighting.
  virtual void learn(const NoiseSchedule&, const Draw&, const Tensor& /*losses*/, const std::vector<Weight>& /*memory*/) const {}
};

/// Returns the schedule's sigma at the share u in [0, 1) of its training times; for a discrete schedule, at the integer floor(u T).
double sigma_at_share(const NoiseSchedule& schedule, double u);
/// Returns sigma, clamped to the schedule's range.
double within_schedule(const NoiseSchedule& schedule, double sigma);

}  // namespace brume
