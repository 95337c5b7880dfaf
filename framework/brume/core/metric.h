#pragma once
// What tells whether an image is what was asked for.
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/core/dataset.h"

namespace brume {

/// What a metric says of one image.
struct Verdict {
  bool right = false;
  std::string group;                                ///< what it is counted with beside all others, "two objects"; may be empty
  std::vector<std::pair<std::string, bool>> parts;  ///< "colour" and whether it is right; only what was asked for
  std::string seen;                                 ///< in words
};

/// Judges images one by one against what they were to be. `const` and safe to call from several threads at once.
class Metric {
 public:
  static constexpr std::string_view kind = "metric";
  virtual ~Metric() = default;
  /// pixels: `shape`, channel by channel, in [-1, 1]. Throws ConfigError where the annotation is none that it understands.
  virtual Verdict judge(std::span<const float> pixels, const ImageShape& shape, const Annotation& asked) const = 0;
};

}  // namespace brume
