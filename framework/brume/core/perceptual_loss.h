#pragma once
// How different two images look, as a loss.
#include <string_view>
#include <vector>

#include "brume/core/model_source.h"
#include "brume/core/network.h"

namespace brume {

/// A distance between images that a first stage is trained by. `const` and safe to call from several threads.
class PerceptualLoss {
 public:
  static constexpr std::string_view kind = "perceptual_loss";
  struct Context {
    ImageShape image;                          ///< of the images compared
    const ModelSource* models = &no_models();  ///< where other models are; lives as long as the constructor runs
    at::ScalarType dtype = at::kFloat;         ///< what its networks compute in
  };
  virtual ~PerceptualLoss() = default;
  /// a, b: [B, C, H, W] float32 in [-1, 1]. [B] float32, 0 where the two are equal; differentiable in a.
  virtual Tensor distance(const Tensor& a, const Tensor& b) const = 0;
  /// Its tensors, never trained; whoever uses it moves them to where the images are.
  virtual std::vector<Weight> weights() const { return {}; }
};

}  // namespace brume
