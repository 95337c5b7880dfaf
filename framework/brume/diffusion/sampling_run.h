#pragma once
// Sampling from a pipeline.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brume/core/row_noise.h"
#include "brume/diffusion/pipeline.h"

namespace brume {
struct Refining;

/// The images to generate.
struct SampleRequest {
  std::vector<Annotation> images;  ///< one per image: its class, caption and negative
  int64_t first = 0;               ///< number of the first image, if a long run is requested piece by piece
  uint64_t seed = 0;
  std::vector<ImageOfRun> runs;              ///< one per image, instead of (seed, first + i); empty = one run
  int64_t batch = 16;                        ///< images per batch; the noise order `batch` makes all of them one batch
  Tensor initial_noise;                      ///< [count, C, H, W] N(0, 1), instead of the seed's; undefined = the seed's
  std::optional<uint64_t> variation_seed;    ///< of noise that is blended into the initial noise
  double variation = 0;                      ///< share of that noise, in [0, 1]
  std::shared_ptr<const Refining> refining;  ///< a model that takes the last steps; null = none
  const ModelSource* models = &no_models();  ///< opens the models of guidances

  int64_t height = 0, width = 0;  ///< of the images; 0 = as the model was trained

  Tensor image;         ///< [1 or count, C, H, W] in [-1, 1] to start from, instead of noise alone; undefined = none
  Tensor latents;       ///< [1 or count, C, h, w] to start from, instead of an image; undefined = none
  double strength = 1;  ///< share of the steps that is run on it, the last ones, in (0, 1]
  Tensor mask;          ///< [1 or count, 1, H, W] in [0, 1], 1 = to generate: for inpainting; needs an image
  /// [count, 1 or 3, H, W] in [-1, 1]: what controls see whose `image` is a preprocessor without a file ("canny"); undefined = none.
  Tensor control_source;
  /// Called once per step of a batch, before x moves on; `first`: the index of the batch's first image. False cancels (Interrupted).
  std::function<bool(int64_t first, const Step&)> observer;
  /// Called with the last x of a batch, [B, C, H, W] in the network's frame, before it is decoded.
  std::function<void(const Tensor& x)> ended;
  /// Called with the images of a batch, [B, C, H, W] in [-1, 1] on the host, as soon as they are decoded; `first` as above.
  std::function<void(int64_t first, const Tensor& images)> made;
};

/// Returns images [count, C, H, W] in [-1, 1] on the host. Image i depends on (seed, first + i) and its annotation alone. Throws
/// ConfigError if the model, the options or the guidances cannot make these images.
Tensor sample_images(const Pipeline& model, const SampleRequest& request, const SampleOptions& options);
/// Samples the same images for `request.made` alone and keeps none, so that memory does not grow with their number.
void sample_batches(const Pipeline& model, const SampleRequest& request, const SampleOptions& options);

/// Returns the model's denoiser with its guidances, whose models `models` opens. Throws ConfigError if one cannot be made.
std::shared_ptr<const Denoiser> guided_denoiser(const Pipeline& model, const SampleOptions& options, const ModelSource& models);

/// Returns the names of the classes that can be requested: the model's (numbers for those without a name), or a guidance's. Empty if
/// there are no classes.
std::vector<std::string> requestable_classes(const Pipeline& model, const SampleOptions& options, const ModelSource& models);

}  // namespace brume
