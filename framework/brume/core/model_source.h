#pragma once
// Other models a plugin works with: a weaker model as a guide, a classifier, a teacher. A plugin names the file; who runs it
// opens it.
#include <memory>
#include <string>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/denoiser.h"
#include "brume/core/noise_schedule.h"

namespace brume {
class Autoencoder;
class Classifier;

/// p(y | x) at any noise level. `const` and safe to call from several threads at once.
class NoisyClassifier {
 public:
  virtual ~NoisyClassifier() = default;
  /// log p(y | x), [B], of x = x0 + sigma * noise, [B, C, H, W], one class an image ([B] int64); differentiable in x. What image
  /// i gets depends on image i only.
  virtual Tensor log_probability(const Tensor& x, double sigma, const Tensor& classes) const = 0;
  virtual const std::vector<std::string>& classes() const = 0;  ///< names by class; "0", "1", ... where it has none
  virtual ImageShape shape() const = 0;                         ///< of one x
};

/// A trained diffusion model: its denoiser, unguided, and what it was trained for.
struct OtherModel {
  std::shared_ptr<const Denoiser> denoiser;
  std::shared_ptr<const NoiseSchedule> schedule;
  ImageShape shape{};     ///< of one x
  int64_t classes = 0;    ///< that an image can have; 0 = none
  bool has_null = false;  ///< it knows the null condition
};

/// A trained first stage and the configuration, in YAML, that makes it.
struct FirstStage {
  std::shared_ptr<const Autoencoder> autoencoder;
  std::string configuration;
};

/// Opens models by path, each once. `const` and safe to call from several threads at once.
class ModelSource {
 public:
  virtual ~ModelSource() = default;
  /// Throws ConfigError where the file is no diffusion model, or no classifier of noisy images.
  virtual OtherModel model(const std::string& path) const = 0;
  virtual std::shared_ptr<const NoisyClassifier> classifier(const std::string& path) const = 0;
  // Those that few open refuse where they are not overridden.
  /// A trained first stage, for images of this shape, in this dtype.
  virtual FirstStage first_stage(const std::string& path, const ImageShape& image, at::ScalarType dtype) const;
  /// A classifier of images, as it sees them (a perceptual distance compares what it does).
  virtual std::shared_ptr<const Classifier> features(const std::string& path) const;
};

/// Opens nothing: every path is a ConfigError that says so.
const ModelSource& no_models();

}  // namespace brume
