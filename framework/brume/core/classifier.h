#pragma once
// A classifier of images, clean or noisy: p(y | x, noise level).
//
// How to write one:
//   1. Derive a final class from Classifier with a nested `Options` (its fields, `declare(Fields&)`), made from (Options, Context).
//   2. Build layers with nn::Builder (nn/blocks/layers.h), which names the weights; `weights()` returns them.
//   3. Implement `forward()`: features and logits, the same for an image whatever its batch.
//   4. A static `check(options, context)` refuses what does not fit, before weights are made.
//   5. Put it into plugins/classifiers/NAME.cpp, which ends with `register_classifier_NAME`.
//   6. Read plugins/classifiers/unet_encoder.cpp as an example; `brume new classifier NAME` writes another.
//   7. Run test_contracts --gtest_filter='*Plugin*NAME*' and train it: tests/train/classifier_test.cpp is an example.
#include <cstdint>
#include <string_view>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// A neural network without knowledge of schedules or losses. `const` and safe to call from several threads.
class Classifier {
 public:
  static constexpr std::string_view kind = "classifier";

  struct Context {
    ImageShape input;     ///< channels, height, width of x
    int64_t classes = 0;  ///< at least 2
    uint64_t seed = 0;    ///< of the initial weights
  };

  struct Output {
    Tensor features;  ///< [B, F], the input of the last linear layer
    Tensor logits;    ///< [B, classes]
  };

  virtual ~Classifier() = default;
  /// Returns features and logits in the dtype of `input`. input: [B, C, H, W] in the compute dtype, in the network's frame (c_in x);
  /// c_noise: [B] float32, 0 for a classifier of clean images. `dropout`: the source of randomness while training; null = evaluation.
  virtual Output forward(const Tensor& input, const Tensor& c_noise, at::Generator* dropout) const = 0;
  virtual NoiseQuantity quantity() const = 0;
  /// Returns every tensor in a stable order with stable, unique names.
  virtual std::vector<Weight> weights() const = 0;
};

}  // namespace brume
