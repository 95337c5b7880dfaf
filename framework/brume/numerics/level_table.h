#pragma once
// The list of noise levels that programs built on Stable Diffusion choose steps from.
#include <cstdint>

#include "brume/core/noise_schedule.h"

namespace brume {

/// The levels of a schedule, ascending: those of its training times if it is discrete, else `times` of them. Flow matching is written in
/// s = sigma / (1 + sigma): its levels are s(u) at u = 1 / times ... 1, and programs take s itself for the time of a level, so that a shift
/// acts twice on the spacings that divide times evenly.
class LevelTable {
 public:
  /// Tabulates the levels. `times`: of a continuous schedule.
  LevelTable(const NoiseSchedule& schedule, int64_t times);
  int64_t size() const { return size_; }
  /// Returns whether the schedule is that of flow matching.
  bool flow() const { return flow_; }
  /// Returns sigma of level i, 0 ... size - 1.
  double sigma(int64_t i) const;
  /// Returns the time that is taken for that of the lowest level, and of the highest.
  double first_time() const;
  double last_time() const;
  /// Returns sigma at a time between them, within the schedule's range.
  double at(double time) const;
  /// Returns sigma in the form that formulas are written in, s for flow matching, and the inverse.
  double value(double sigma) const { return flow_ ? sigma / (1 + sigma) : sigma; }
  double of_value(double value) const;

 private:
  double within(double sigma) const;
  const NoiseSchedule& schedule_;
  int64_t size_;
  bool flow_;
};

}  // namespace brume
