#pragma once
// What a sample is asked to be.
#include <memory>

#include "core/tensor.h"

namespace brume {

/// The condition of a batch, one row an image, as the network takes it. Parts that a model does not use stay undefined.
struct Condition {
  Tensor classes;  ///< [B] int64, rows of the class embedding

  /// The same batch without its condition (classifier-free guidance); null where the model was trained without one.
  std::shared_ptr<const Condition> null;

  /// Rows [begin, begin + count) of every part.
  Condition slice(int64_t begin, int64_t count) const;
  /// These rows of every part; [n] int64.
  Condition select(const Tensor& rows) const;
  Condition to(at::Device device) const;
};

/// The rows of `a`, then those of `b`.
Condition concat(const Condition& a, const Condition& b);

}  // namespace brume
