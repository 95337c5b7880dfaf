#pragma once
// A classifier of images, clean or noisy: p(y | x, noise level).
#include <cstdint>
#include <string_view>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// A neural network that tells classes apart, without knowledge of schedules or losses. `const` and safe to call from several
/// threads.
class Classifier {
 public:
  static constexpr std::string_view kind = "classifier";

  struct Context {
    ImageShape input;     ///< channels, height, width of x
    int64_t classes = 0;  ///< at least 2
    uint64_t seed = 0;    ///< of the initial weights
  };

  struct Output {
    Tensor features;  ///< [B, F], what the last linear layer sees
    Tensor logits;    ///< [B, classes]
  };

  virtual ~Classifier() = default;
  /// input: [B, C, H, W] in the compute dtype, in the network's frame (c_in x); c_noise: [B] float32, 0 for a classifier of clean
  /// images. The output is of the dtype of input. `dropout`: the source of randomness while training; null means evaluation.
  virtual Output forward(const Tensor& input, const Tensor& c_noise, at::Generator* dropout) const = 0;
  virtual NoiseQuantity quantity() const = 0;
  /// Every tensor in a stable order with stable, unique names.
  virtual std::vector<Weight> weights() const = 0;
};

}  // namespace brume
