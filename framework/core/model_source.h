#pragma once
// Other models a plugin works with: a weaker model as a guide, a classifier, a teacher. A plugin names the file; who runs it
// opens it.
#include <memory>
#include <string>

#include "core/denoiser.h"
#include "core/noise_schedule.h"

namespace brume {

/// log p(y | x) at any noise level. `const` and safe to call from several threads at once.
class NoisyClassifier {
 public:
  virtual ~NoisyClassifier() = default;
  /// Logits [B, classes] in float32 of x = x0 + sigma * noise, [B, C, H, W]; differentiable in x.
  virtual Tensor logits(const Tensor& x, double sigma) const = 0;
  virtual int64_t classes() const = 0;
};

/// A trained diffusion model: its denoiser, unguided, and the noise it was trained on.
struct OtherModel {
  std::shared_ptr<const Denoiser> denoiser;
  std::shared_ptr<const NoiseSchedule> schedule;
};

/// Opens models by path, each once. `const` and safe to call from several threads at once.
class ModelSource {
 public:
  virtual ~ModelSource() = default;
  /// Throws ConfigError where the file is no diffusion model, or no classifier of noisy images.
  virtual OtherModel model(const std::string& path) const = 0;
  virtual std::shared_ptr<const NoisyClassifier> classifier(const std::string& path) const = 0;
};

/// Opens nothing: every path is a ConfigError that says so.
const ModelSource& no_models();

}  // namespace brume
