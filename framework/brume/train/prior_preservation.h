#pragma once
// DreamBooth's prior preservation (Ruiz et al. 2022, "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven
// Generation", sec. 3.2): the training images alternate with images of their class, which the model made before it was trained,
//
//   loss = mean over both of w |eps - eps(x, c)|^2,   w = 1 of the subject, loss_weight of the class.
#include <functional>
#include <memory>

#include "brume/core/model_source.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/compute.h"
#include "brume/distributed/world.h"
#include "brume/train/options.h"

namespace brume {

/// Receives how far the class images are, in image steps; returns false to stop (Interrupted).
using Preparing = std::function<bool(int64_t done, int64_t count)>;

/// Returns the training images of a configuration, and among them, if it has `train.prior_preservation`, as many of the class. Makes the
/// class images that are missing first, by `source` (null = a resumed training makes none), each process its part. Throws ConfigError.
std::shared_ptr<const Dataset> training_images(const Config& config, const StoredModel* source, const ModelSource& models,
                                               const Compute& compute, World& world, const Preparing& preparing);

}  // namespace brume
