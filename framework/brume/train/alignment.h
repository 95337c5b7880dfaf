#pragma once
// Representation alignment (Yu et al. 2025, "Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You
// Think", REPA, eq. 8): what a block of the network makes of the noisy image is drawn towards what a pretrained extractor sees in the
// clean one.
//
//   loss = loss of the objective - weight mean over images and patches n of cos(y_n, p(h_n))
//
// y: features of the patches; h: tokens of the block; p: three linear layers with SiLU between them, trained with the model and no part
// of it. If the features have another grid than the tokens, they are resized to it (bilinear, antialiased). Features of whole images are
// compared with p of the mean token.
#include <memory>
#include <optional>
#include <vector>

#include "brume/core/features.h"
#include "brume/diffusion/pipeline.h"
#include "brume/nn/blocks/layers.h"
#include "brume/train/options.h"

namespace brume {

class Alignment {
 public:
  /// Opens the extractor and calls it and the network once, for their shapes. `models` opens a classifier; `seed`: of the projection.
  /// Throws ConfigError if the block is not there, if its output is no grid of tokens, or if the extractor does not take the images.
  Alignment(const AlignmentOptions& options, const Pipeline& model, const ModelSource& models, uint64_t seed);

  /// Returns the weights of the projection.
  std::vector<Weight> weights() const { return build_.weights(); }
  /// Returns taps that keep the block's output in each call which is recorded for gradients. They live as long as this, until the next.
  Taps taps();
  /// Returns the mean cosine over the calls since taps(), a differentiable scalar in [-1, 1]; undefined if none was recorded. images:
  /// [B, C, H, W] in [-1, 1].
  Tensor cosine(const Tensor& images);
  /// Returns the value of the last one that was defined.
  double figure() const { return figure_; }

 private:
  /// Returns the numbers of tokens along the height and width of latents of images of this shape.
  std::vector<int64_t> grid_of(const ImageShape& image) const;
  /// Returns the block's output as [B, C, rows, columns].
  Tensor as_grid(const Tensor& hidden, const std::vector<int64_t>& grid) const;
  /// Returns the features of images: [B, D, rows, columns] of patches, or [B, D, 1, 1].
  Tensor features(const Tensor& images) const;
  /// Returns the output of the block for an image of zeros.
  Tensor probe() const;

  AlignmentOptions o_;
  const Pipeline& model_;
  std::shared_ptr<const Features> features_;
  nn::Builder build_;
  nn::Linear layers_[3];
  std::vector<Tensor> seen_;
  double figure_ = 0;
};

/// Returns the mean over images and places of the cosine of the channels, in float32. a, b: [B, D, ...].
Tensor mean_cosine(const Tensor& a, const Tensor& b);

}  // namespace brume
