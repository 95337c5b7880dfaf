#pragma once
// How different two images look, as a loss.
//
// How to write one:
//   1. Derive a final class from PerceptualLoss with a nested `Options` (fields with defaults, `declare(Fields&)`).
//   2. Make it from (Options, Context); open other models by `context.models` alone.
//   3. Implement `distance()`: 0 for equal images, differentiable in the first. Say `static constexpr bool neutral = true` if it is 0 for
//   all.
//   4. Return the tensors of its networks from `weights()`; they are never trained.
//   5. Put it into plugins/perceptual_losses/NAME.cpp, which ends with `register_perceptual_loss_NAME`.
//   6. Read plugins/perceptual_losses/lpips.cpp as an example; `brume new perceptual_loss NAME` writes another.
//   7. Add a test like tests/nn/lpips_test.cpp; test_contracts --gtest_filter='*Plugin*NAME*' checks its options.
#include <string_view>
#include <vector>

#include "brume/core/model_source.h"
#include "brume/core/network.h"

namespace brume {

/// A distance between images, part of the loss of a first stage. `const` and safe to call from several threads.
class PerceptualLoss {
 public:
  static constexpr std::string_view kind = "perceptual_loss";
  struct Context {
    ImageShape image;                          ///< of the images compared
    const ModelSource* models = &no_models();  ///< opens other models; lives as long as the constructor runs
    at::ScalarType dtype = at::kFloat;         ///< the compute dtype of its networks
  };
  virtual ~PerceptualLoss() = default;
  /// Returns [B] float32, 0 if the two are equal; differentiable in a. a, b: [B, C, H, W] float32 in [-1, 1].
  virtual Tensor distance(const Tensor& a, const Tensor& b) const = 0;
  /// Returns its tensors, which are never trained; the caller moves them to the device of the images.
  virtual std::vector<Weight> weights() const { return {}; }
};

}  // namespace brume
