#pragma once
// Judges whether an image is what was requested.
//
// How to write one:
//   1. Derive a final class from Metric with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `judge()` for one image; several threads call it at once.
//   3. Throw ConfigError if the annotation is none that the metric understands.
//   4. Name a group and parts if the result is to be broken down.
//   5. Put it into plugins/metrics/NAME.cpp, which ends with `register_metric_NAME`.
//   6. Read plugins/metrics/caption_accuracy.cpp as an example; `brume new metric NAME` writes another.
//   7. Add a test like tests/datasets/caption_accuracy_test.cpp; test_contracts --gtest_filter='*Plugin*NAME*' checks its options.
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/core/dataset.h"

namespace brume {

/// The verdict on one image.
struct Verdict {
  bool right = false;
  std::string group;                                ///< is counted apart as well as in the total, "two objects"; may be empty
  std::vector<std::pair<std::string, bool>> parts;  ///< "colour" and whether it is right; requested parts only
  std::string seen;                                 ///< what the metric found, in words
};

/// Judges images one by one. `const` and safe to call from several threads at once.
class Metric {
 public:
  static constexpr std::string_view kind = "metric";
  virtual ~Metric() = default;
  /// Returns the verdict. pixels: `shape`, channel by channel, in [-1, 1]. Throws ConfigError if it does not understand the annotation.
  virtual Verdict judge(std::span<const float> pixels, const ImageShape& shape, const Annotation& asked) const = 0;
};

}  // namespace brume
