#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// Updates weights from their gradients, with its own schedule of the learning rate.
class Optimizer {
 public:
  static constexpr std::string_view kind = "optimizer";
  struct Context {
    std::vector<Weight> weights;  ///< the trainable ones, float32
    int64_t steps = 0;            ///< of the whole training
  };
  virtual ~Optimizer() = default;
  /// One update from the weights' .grad(), which it clears. `step` counts from 0. Returns the norm of the gradient before
  /// clipping; where that is not finite nothing is updated.
  virtual double update(int64_t step) = 0;
  virtual double learning_rate(int64_t step) const = 0;
  /// Moments and the like, to be saved and restored bit for bit (restoring copies into these tensors).
  virtual std::vector<Weight> state() const = 0;
};

}  // namespace brume
