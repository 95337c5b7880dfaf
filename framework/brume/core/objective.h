#pragma once
// Training losses, and the weights of noise levels.
//
// How to write one:
//   1. Derive a final class from Objective with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `loss()`: draw sigmas, call `model.predict()`, return the mean over the batch. Draw from `random` alone.
//   3. A weighted error of one image, noise or v each is numerics/noising.h: give it the weight and the target.
//   4. Keep what lasts from step to step in `memory()`; let `check()` refuse the models it cannot train.
//   5. Put it into plugins/objectives/NAME.cpp, which ends with `register_objective_NAME`. A Weighting goes to plugins/weightings.
//   6. Read plugins/objectives/simple.cpp and plugins/weightings/min_snr.cpp as examples; `brume new objective NAME` writes another.
//   7. Run test_contracts --gtest_filter='*Objective*NAME*' (tests/contracts/objective_test.cpp), and `brume conform objective NAME`.
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

/// A model as an objective sees it: differentiable, one sigma per image.
class TrainableModel {
 public:
  struct Prediction {
    Tensor f;               ///< F(c_in x, c_noise, condition)
    Tensor variance;        ///< as in Estimate; undefined if the model learns none
    Tensor log_variance{};  ///< Network::log_variance, [B]; undefined if the network learns none
  };
  virtual ~TrainableModel() = default;
  /// Returns float32. x: [B, ...], x = x0 + sigma * noise.
  virtual Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const = 0;
  Tensor network(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const {
    return predict(x, sigmas, condition).f;
  }
  virtual const NoiseSchedule& schedule() const = 0;
  virtual const Parameterization& parameterization() const = 0;
  virtual LearnedVariance variance() const { return LearnedVariance::none; }
};

/// The state of a training. Objectives are values: what they keep from step to step lives here.
struct Training {
  int64_t step = 0;                          ///< counts from 0
  int64_t steps = 1;                         ///< of the whole training
  std::vector<Weight> memory{};              ///< as Objective::memory made it; saved and restored with the training
  const ModelSource* models = &no_models();  ///< opens teachers
};

/// Draws sigmas, weights the error and returns the loss.
class Objective {
 public:
  static constexpr std::string_view kind = "objective";

  /// What an objective can require of a model before it is trained.
  struct Requirements {
    const NoiseSchedule& schedule;
    const Parameterization& parameterization;
    LearnedVariance variance;
  };

  virtual ~Objective() = default;
  /// Returns the scalar float32 loss, the mean over the batch. x0: [B, C, H, W]; `random`: a CPU generator.
  virtual Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
                      at::Generator& random) const = 0;
  /// Returns new tensors that a training of this objective keeps from step to step.
  virtual std::vector<Weight> memory(const NoiseSchedule&) const { return {}; }
  /// Throws ConfigError if such a model cannot be trained by this objective.
  virtual void check(const Requirements&) const {}
  /// Returns true if its best model is the posterior mean E[x0 | x]; few-step objectives have another.
  virtual bool denoises() const { return true; }
};

/// What the error is of. At fixed x, an error of x0 is one of noise times -sigma, one of v times -sigma / sqrt(1 + sigma^2), and
/// one of the velocity of flow matching (noise - x0) times -sigma / (1 + sigma).
enum class Target { noise, image, v, flow };

/// w(sigma): the weight of an image at this noise level.
class Weighting {
 public:
  static constexpr std::string_view kind = "weighting";
  virtual ~Weighting() = default;
  /// Returns the factor of the squared error of `target`.
  virtual double weight(double sigma, Target target) const = 0;
};

/// Returns the factor that turns a squared error of `target` into one of the noise.
double noise_units(double sigma, Target target);

}  // namespace brume
