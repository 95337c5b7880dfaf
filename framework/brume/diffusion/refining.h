#pragma once
// A second model that takes the last steps of a run (Podell et al. 2023, "SDXL", sec. 2.5).
#include <functional>
#include <memory>
#include <vector>

#include "brume/diffusion/pipeline.h"

namespace brume {

/// What refines the images of a request.
struct Refining {
  const Pipeline& model;
  const SampleOptions& options;    ///< sampler, guidances, prompts and timestep rounding; the levels are the run's
  const ModelSource& models;       ///< opens the models of its guidances
  std::vector<Annotation> images;  ///< one per image
  double from = 0.8;               ///< share of the training times that the base model runs, in (0, 1)
  bool of_steps = false;           ///< it is a share of the steps
};

/// Runs the last steps of batches.
class Refiner {
 public:
  /// Throws ConfigError if the model refines no such latents.
  Refiner(const Refining& refining, const ImageShape& image, const ImageShape& latent);
  /// Returns the index of the level at which the refiner begins: the first whose training time is below 1 - from, or after so many steps.
  /// Throws ConfigError if the base or the refiner has no step.
  int64_t split(const NoiseSchedule& schedule, const std::vector<double>& sigmas) const;
  /// Returns x at sigmas.back() from x at sigmas.front(), images from `first` on.
  Tensor sample(const Tensor& x, const std::vector<double>& sigmas, int64_t first, Noise& noise, std::unique_ptr<Noise> of_guidances,
                const std::function<bool(const Step&)>& observer) const;

 private:
  Condition condition_of(int64_t first, int64_t count) const;

  const Refining& refining_;
  ImageShape image_;
  PromptReading reading_;
  std::shared_ptr<const Denoiser> denoiser_;
};

}  // namespace brume
