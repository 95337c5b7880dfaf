#pragma once
// Weights that take no memory between the layers' uses of them.
#include <functional>
#include <vector>

#include "brume/core/tensor.h"

namespace brume {

/// Weights that are formed at each use: a base and what adapters add to it. Layers form them, writers of files do, and who copies weights.
/// Within a block with gradient checkpointing, one is dropped after its use and formed again in the backward pass. Safe to use from several
/// threads.
class FormedWeights {
 public:
  /// Returns a float32 tensor of the weight's shape, which leads to the parameters if gradients are recorded.
  using Form = std::function<Tensor()>;

  FormedWeights() = default;
  ~FormedWeights();
  FormedWeights(const FormedWeights&) = delete;
  FormedWeights& operator=(const FormedWeights&) = delete;

  /// Lets whoever holds `weight` compute with form() for as long as this object lives. The memory of `weight` is given up: who reads it
  /// without of() reads NaN.
  void add(Tensor weight, Form form);

  /// Returns true if the weight was added.
  static bool has(const Tensor& weight);

  /// Returns the formed weight of one that was added; any other one as it is.
  static Tensor of(const Tensor& weight);

 private:
  std::vector<Tensor> weights_;
};

}  // namespace brume
