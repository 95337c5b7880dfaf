#pragma once
// Other models that a plugin works with: a weaker model as a guide, a classifier, a teacher. A plugin names the file, its caller
// opens it.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/denoiser.h"
#include "brume/core/noise_schedule.h"
#include "brume/core/taps.h"

namespace brume {
class Autoencoder;
class Classifier;

/// p(y | x) at any noise level. `const` and safe to call from several threads at once.
class NoisyClassifier {
 public:
  virtual ~NoisyClassifier() = default;
  /// Returns log p(y | x), [B], of x = x0 + sigma * noise, [B, C, H, W], for one class per image ([B] int64); differentiable in x. The
  /// result of an image depends on that image alone.
  virtual Tensor log_probability(const Tensor& x, double sigma, const Tensor& classes) const = 0;
  virtual const std::vector<std::string>& classes() const = 0;  ///< names by class; "0", "1", ... if it has none
  virtual ImageShape shape() const = 0;                         ///< of one x
};

/// A trained diffusion model.
struct OtherModel {
  std::shared_ptr<const Denoiser> denoiser;  ///< unguided
  std::shared_ptr<const NoiseSchedule> schedule;
  ImageShape shape{};      ///< of one x
  int64_t classes = 0;     ///< number of classes that can be requested; 0 = none
  bool has_null = false;   ///< it was trained with the null condition
  TapPoints tap_points{};  ///< of its network
  /// Returns the same denoiser with these taps in its network, which lives as long as the model; empty if it has no network.
  std::function<std::shared_ptr<const Denoiser>(Taps taps)> tapped{};
};

/// A trained first stage.
struct FirstStage {
  std::shared_ptr<const Autoencoder> autoencoder;
  std::string configuration;  ///< YAML that makes it
};

/// Opens models by path, each once. `const` and safe to call from several threads at once.
class ModelSource {
 public:
  virtual ~ModelSource() = default;
  /// Throws ConfigError if the file is no diffusion model.
  virtual OtherModel model(const std::string& path) const = 0;
  /// Throws ConfigError if the file is no classifier of noisy images.
  virtual std::shared_ptr<const NoisyClassifier> classifier(const std::string& path) const = 0;
  // Sources that do not override these refuse with a ConfigError.
  /// Returns a trained first stage for images of this shape, in this dtype.
  virtual FirstStage first_stage(const std::string& path, const ImageShape& image, at::ScalarType dtype) const;
  /// Returns a classifier of images, whose features a perceptual distance compares.
  virtual std::shared_ptr<const Classifier> features(const std::string& path) const;
};

/// Returns a source that opens nothing: every path is a ConfigError that says so.
const ModelSource& no_models();

}  // namespace brume
