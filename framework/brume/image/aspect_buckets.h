#pragma once
// Shapes of about the same number of pixels and several proportions, for images that are not square.
#include <cstdint>
#include <optional>
#include <vector>

#include "brume/config/fields.h"
#include "brume/core/dataset.h"

namespace brume {

/// Sides are multiples of `step` between `smallest` and `largest`, and no shape has more pixels than the model's (NovelAI 2022, "NovelAI
/// Improvements on Stable Diffusion": aspect ratio bucketing).
struct AspectBuckets {
  int64_t step = 64;
  std::optional<int64_t> smallest, largest;  ///< absent: half and twice the model's shorter and longer side

  void declare(Fields& f);
  /// Returns the shapes, from the tallest to the widest. Throws ConfigError if no shape can be made.
  std::vector<ImageShape> shapes(const ImageShape& model) const;
};

/// Returns the number of the shape whose proportions are nearest to an image's; the larger of two that are as near.
size_t nearest_shape(const std::vector<ImageShape>& shapes, int64_t height, int64_t width);

}  // namespace brume
