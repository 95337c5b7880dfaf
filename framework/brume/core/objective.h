#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "brume/core/model_source.h"
#include "brume/core/network.h"
#include "brume/core/parameterization.h"

namespace at {
struct Generator;
}

namespace brume {

/// A model as an objective sees it: differentiable, one sigma an image.
class TrainableModel {
 public:
  struct Prediction {
    Tensor f;         ///< F(c_in x, c_noise, condition)
    Tensor variance;  ///< as in Estimate; undefined where the model learns none
  };
  virtual ~TrainableModel() = default;
  /// In float32. x: [B, ...], x = x0 + sigma * noise.
  virtual Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const = 0;
  Tensor network(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const {
    return predict(x, sigmas, condition).f;
  }
  virtual const NoiseSchedule& schedule() const = 0;
  virtual const Parameterization& parameterization() const = 0;
  virtual LearnedVariance variance() const { return LearnedVariance::none; }
};

/// Where a training stands, and what it carries from step to step: objectives are values, what they remember lives here.
struct Training {
  int64_t step = 0;                          ///< counts from 0
  int64_t steps = 1;                         ///< of the whole training
  std::vector<Weight> memory{};              ///< as Objective::memory made it; saved and restored with the training
  const ModelSource* models = &no_models();  ///< where teachers are
};

/// Draws sigmas, weights the error and returns the loss.
class Objective {
 public:
  static constexpr std::string_view kind = "objective";

  /// What an objective may ask of a model before it is trained.
  struct Requirements {
    const NoiseSchedule& schedule;
    const Parameterization& parameterization;
    LearnedVariance variance;
  };

  virtual ~Objective() = default;
  /// Scalar float32 loss, the mean over the batch. x0: [B, C, H, W]; `random`: a CPU generator, the only randomness.
  virtual Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
                      at::Generator& random) const = 0;
  /// Fresh tensors that a training of this objective carries from step to step.
  virtual std::vector<Weight> memory(const NoiseSchedule&) const { return {}; }
  /// Throws ConfigError where such a model cannot be trained by this objective.
  virtual void check(const Requirements&) const {}
};

/// Whose error is measured. At fixed x, an error of x0 is one of noise times -sigma, one of v times -sigma / sqrt(1 + sigma^2), and
/// one of the velocity of flow matching (noise - x0) times -sigma / (1 + sigma).
enum class Target { noise, image, v, flow };

/// w(sigma): how much an image at this noise level counts.
class Weighting {
 public:
  static constexpr std::string_view kind = "weighting";
  virtual ~Weighting() = default;
  /// The factor on the squared error of `target`.
  virtual double weight(double sigma, Target target) const = 0;
};

/// The factor that turns a squared error of `target` into one of the noise.
double noise_units(double sigma, Target target);

}  // namespace brume
