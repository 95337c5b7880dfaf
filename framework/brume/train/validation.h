#pragma once
// The loss of a diffusion model on images that it is not trained on, by noise level.
#include <cstdint>
#include <functional>

#include "brume/train/optimization.h"
#include "brume/train/options.h"

namespace brume {
class Pipeline;
struct PromptReading;

/// What is measured, and how.
struct ValidationRequest {
  const ValidationOptions& options;
  int64_t at_once;                         ///< images per batch at most
  uint64_t seed;                           ///< of the training
  const PromptReading* reading = nullptr;  ///< of captions; null = as the model was trained
};

/// Returns validation_loss_SIGMA for each of `levels` noise levels at the middles of equal parts of the training times, and their mean,
/// validation_loss. A loss is the mean of ((x0 - D(x)) / c_out)^2, the squared error of F in the units of the parameterization (Karras et
/// al. 2022, eq. 7): of the noise for eps, of v for v. Conditions are not dropped. The noise follows from the seed, the level and the
/// number of the image alone, so that the figures of two checkpoints are of the same noise, whatever the batch. Returns nothing if `stop`
/// says so meanwhile. Throws ConfigError if the images are of another shape than the model's, or latents of another first stage.
Metrics validation_losses(const Pipeline& model, const Dataset& data, const ValidationRequest& request, const std::function<bool()>& stop);

}  // namespace brume
