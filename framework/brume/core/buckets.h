#pragma once
// Data sets whose images have several shapes, each batch one of them.
#include <cstdint>
#include <span>
#include <vector>

#include "brume/core/dataset.h"

namespace brume {

/// Implemented by data sets that can read each image in a shape near its own, besides Dataset. Safe from several threads.
class Buckets {
 public:
  virtual ~Buckets() = default;
  /// Returns the shapes, each once; empty = the set has the shape of its context alone.
  virtual std::vector<ImageShape> buckets() const = 0;
  /// Returns the number in buckets() of the shape of image `index`.
  virtual size_t bucket_of(int64_t index) const = 0;
  /// Reads image `index` as Dataset::read does, in the shape of its bucket.
  virtual Annotation read_bucket(int64_t index, uint64_t draw, std::span<float> pixels) const = 0;
};

/// Returns the buckets of a set; null if it has one shape.
inline const Buckets* buckets_of(const Dataset& data) {
  const auto* buckets = dynamic_cast<const Buckets*>(&data);
  return buckets && !buckets->buckets().empty() ? buckets : nullptr;
}

}  // namespace brume
