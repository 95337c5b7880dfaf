#pragma once
// Data sets whose images, or parts of them, count more or less in the loss.
#include <cstdint>
#include <span>

#include "brume/core/dataset.h"

namespace brume {

/// Implemented by data sets that weigh the error of their images, besides Dataset. Safe from several threads.
class LossWeights {
 public:
  virtual ~LossWeights() = default;
  /// Returns whether any weight is not 1.
  virtual bool weighs() const = 0;
  /// Writes the factors of the error at the pixels of image `index`, [H, W] of `shape`, as Dataset::read places them for `draw`.
  virtual void read_weights(int64_t index, uint64_t draw, const ImageShape& shape, std::span<float> weights) const = 0;
};

/// Returns the weights of a set; null if all are 1.
inline const LossWeights* loss_weights_of(const Dataset& data) {
  const auto* weights = dynamic_cast<const LossWeights*>(&data);
  return weights && weights->weighs() ? weights : nullptr;
}

}  // namespace brume
