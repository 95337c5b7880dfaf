#pragma once
// What guidances remember within one run of a sampler: momentum, cached estimates, the step. Guidances themselves are const.
#include <any>
#include <cstdint>
#include <map>
#include <memory>

#include "brume/core/noise.h"

namespace brume {

/// The memory of the run of this thread, while it lives, instead of any earlier one. Outside a run guidances remember nothing.
class RunMemory {
 public:
  /// `noise`: what guidances draw from, apart from the sampler's.
  explicit RunMemory(std::unique_ptr<Noise> noise);
  ~RunMemory();
  RunMemory(const RunMemory&) = delete;
  RunMemory& operator=(const RunMemory&) = delete;

  /// Returns the innermost run of this thread; null outside.
  static RunMemory* current();
  Noise& noise() { return *noise_; }
  /// Returns what `owner` keeps, a T that is made by default at first.
  template <class T>
  T& of(const void* owner) {
    std::any& kept = kept_[owner];
    if (!kept.has_value()) kept = T();
    return *std::any_cast<T>(&kept);
  }

 private:
  std::unique_ptr<Noise> noise_;
  std::map<const void*, std::any> kept_;
  RunMemory* outer_;
};

/// Counts the steps of a run as a guidance sees them: the levels of sigma that it was called at.
struct StepCounter {
  int64_t step = -1;
  double sigma = -1;
  /// Returns the index of the step that a call at `level` belongs to, 0 for the first.
  int64_t at(double level) {
    if (level != sigma) sigma = level, ++step;
    return step;
  }
};

}  // namespace brume
