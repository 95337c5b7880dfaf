#pragma once
// Judges a set of images by its features, mostly against those of real images: FID, KID, precision and recall.
//
// How to write one:
//   1. Derive a final class from SetMetric with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Return from `needs()` what it reads of a set: nothing else is kept in memory.
//   3. Implement `score()`. Compute in float64 and in the order of the images. Throw ConfigError if a set is too small.
//   4. Put it into plugins/set_metrics/NAME.cpp, which ends with `register_set_metric_NAME`.
//   5. Read plugins/set_metrics/kid.cpp as an example; `brume new set_metric NAME` writes another.
//   6. Run test_contracts --gtest_filter='*SetMetric*NAME*' (tests/contracts/set_metric_test.cpp).
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/feature_statistics.h"

namespace brume {

/// What is known of a set of images. Tensors that no metric needs are undefined.
struct FeatureSummary {
  std::string name;              ///< of the set, for errors: "--real"
  int64_t images = 0;            ///< 0 = unknown (statistics of a file that does not name the number)
  FeatureStatistics statistics;  ///< of the features
  FeatureStatistics spatial;     ///< of the spatial features
  Tensor rows;                   ///< [N, D] float32, the features of each image
  Tensor logits;                 ///< [N, classes] float32
  Tensor captions{};             ///< [N, D] float32, the features of each image's caption
};

/// A figure of a set. `const` and safe to call from several threads at once.
class SetMetric {
 public:
  static constexpr std::string_view kind = "set_metric";

  struct Needs {
    bool statistics = false, spatial = false, rows = false, logits = false;
    bool real = true;               ///< whether the set is compared with real images
    bool captions = false;          ///< whether each image is compared with its caption
    std::string frechet_name = {};  ///< Features::frechet_name() of the features that the metric is defined for; empty = any
  };
  struct Figure {
    std::string name;  ///< "precision"
    double value = 0;
  };

  virtual ~SetMetric() = default;
  virtual Needs needs() const = 0;
  /// Returns the figures of `set`, always the same names in the same order. `real` is empty unless needs().real. Throws ConfigError if a
  /// set has too few images.
  virtual std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary& real) const = 0;
};

}  // namespace brume
