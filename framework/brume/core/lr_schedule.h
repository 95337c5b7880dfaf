#pragma once
// How the learning rate changes over a training.
//
// How to write one:
//   1. Derive a final class from LearningRateSchedule with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `factor()`, which is 1 where the learning rate is the optimizer's `lr`. The warm-up is the optimizer's.
//      Return false from `depends_on_steps()` if it does not look at the number of steps.
//   3. Put it into plugins/lr_schedules/NAME.cpp, which ends with `register_lr_schedule_NAME`.
//   4. Read plugins/lr_schedules/cosine.cpp as an example; `brume new lr_schedule NAME` writes another.
//   5. Run test_contracts --gtest_filter='*LearningRateSchedule*NAME*' (tests/contracts/lr_schedule_test.cpp).
#include <cstdint>
#include <string_view>

namespace brume {

/// A value, made while the configuration is read.
class LearningRateSchedule {
 public:
  static constexpr std::string_view kind = "lr_schedule";
  /// How far a training is.
  struct Progress {
    int64_t step = 0;    ///< counts from 0 at the end of the warm-up
    int64_t steps = 1;   ///< updates after the warm-up, at least 1
    int64_t warmup = 0;  ///< updates before
    /// Returns the share of the steps that is over, in [0, 1].
    double share() const { return step >= steps ? 1 : double(step) / double(steps); }
  };
  virtual ~LearningRateSchedule() = default;
  /// Returns the factor of the learning rate, at least 0. A step that is not before the last has the factor of the end.
  virtual double factor(const Progress& progress) const = 0;
  /// Returns false if the factor does not depend on Progress::steps.
  virtual bool depends_on_steps() const { return true; }
};

}  // namespace brume
