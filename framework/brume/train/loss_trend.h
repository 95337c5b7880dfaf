#pragma once
// Noticing that a training diverges while its loss is still a finite number.
#include <array>
#include <cstdint>
#include <optional>

namespace brume {

/// Follows the mean of the last losses: of about fifty steps, each of which counts 2 % less than the next one.
class LossTrend {
 public:
  /// A mean that has grown, and the least one before it.
  struct Growth {
    double mean, least;
  };
  /// Adds the loss of a step. Returns the growth, once in a training, if the mean is five times its least value, or five times the largest
  /// of the first five losses. Losses that are not positive are not judged.
  std::optional<Growth> add(double loss);

  /// Returns the mean of the last losses; 0 before the first.
  double mean() const;
  /// Returns true if the mean is twice its least value: what is saved now may be worse than what was saved before.
  bool grows() const { return least_ > 0 && mean() > 2 * least_; }

  /// Returns true if add() has returned a growth.
  bool told() const { return told_; }

  /// Returns what a later process of the training goes on with.
  std::array<double, 4> state() const { return {double(count_), sum_, least_, double(told_)}; }
  void restore(const std::array<double, 4>& state);

 private:
  int64_t count_ = 0;
  double sum_ = 0;    ///< of the losses, decayed
  double least_ = 0;  ///< mean
  bool told_ = false;
};

}  // namespace brume
