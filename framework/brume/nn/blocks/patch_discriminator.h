#pragma once
// The patch discriminator of Isola et al. 2017 ("Image-to-image translation with conditional adversarial networks", section 3.2.2): a
// convolutional network whose logits each see one patch of the image.
//
//   conv 4x4 stride 2, lrelu;  (layers - 1) times: conv stride 2 of twice the channels, norm, lrelu;  conv stride 1, norm, lrelu;  conv ->
//   1
//
// The norm is a group norm, not the paper's batch norm, so that the logits of an image do not depend on the rest of its batch.
#include <optional>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/nn/blocks/layers.h"

namespace brume::nn {

struct PatchDiscriminatorOptions {
  int64_t channels = 64;  ///< of the first layer; at most eight times as many later
  int64_t layers = 3;     ///< of stride 2
};

/// Returns the shape of the logits of an image. Throws ConfigError if the image is too small for the layers.
ImageShape logits_shape(const ImageShape& image, int64_t layers);

class PatchDiscriminator {
 public:
  PatchDiscriminator(const Builder& build, int64_t image_channels, const PatchDiscriminatorOptions& options);
  /// Returns logits [B, 1, h, w], large for real images, in the dtype of images [B, C, H, W]. `learns`: gradients reach the weights.
  Tensor operator()(const Tensor& images, bool learns) const;

 private:
  struct Layer {
    Conv2d conv;
    std::optional<GroupNorm> norm;
  };
  std::vector<Layer> layers_;
};

}  // namespace brume::nn
