#pragma once
// What optimizers share: the learning rate and the clipping of gradients.
#include <cstdint>
#include <memory>

#include "brume/config/fields.h"
#include "brume/core/lr_schedule.h"

namespace brume {

/// Linear warm-up from 0, then the schedule `decay`.
struct LearningRate {
  double lr = 2e-4;
  int64_t warmup = 0;
  std::shared_ptr<const LearningRateSchedule> decay{};  ///< null = constant
  double clip = 1, clip_value = 0;
  void declare(Fields& f);
  double at(int64_t step, int64_t steps) const { return at(step, steps, lr); }
  /// Returns the learning rate of weights whose largest is `peak` instead of lr.
  double at(int64_t step, int64_t steps, double peak) const;
};

}  // namespace brume
