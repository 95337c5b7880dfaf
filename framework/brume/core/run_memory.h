#pragma once
// What guidances remember within one run of a sampler: momentum, cached estimates, the step. Guidances themselves are const.
#include <any>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "brume/core/noise.h"

namespace brume {

/// The memory of the run of this thread, while it lives, instead of any earlier one. Outside a run guidances remember nothing.
class RunMemory {
 public:
  /// Begins the memory of a run. `noise`: what guidances draw from, apart from the sampler's. `sigmas`: the levels of the run, descending.
  explicit RunMemory(std::unique_ptr<Noise> noise, std::vector<double> sigmas = {});
  ~RunMemory();
  RunMemory(const RunMemory&) = delete;
  RunMemory& operator=(const RunMemory&) = delete;

  /// Returns the innermost run of this thread; null outside.
  static RunMemory* current();
  Noise& noise() { return *noise_; }
  /// Returns the index of the step that a call at `sigma` belongs to: of the last level that is at least sigma; 0 without levels.
  int64_t step_at(double sigma) const;
  /// Returns the number of steps of the run; 0 if it is not known.
  int64_t steps() const { return sigmas_.empty() ? 0 : int64_t(sigmas_.size()) - 1; }
  /// Returns what `owner` keeps, a T that is made by default at first.
  template <class T>
  T& of(const void* owner) {
    std::any& kept = kept_[owner];
    if (!kept.has_value()) kept = T();
    return *std::any_cast<T>(&kept);
  }

 private:
  std::unique_ptr<Noise> noise_;
  std::vector<double> sigmas_;
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
