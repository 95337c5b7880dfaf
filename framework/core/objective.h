#pragma once
#include <string_view>
#include <vector>

#include "core/condition.h"
#include "core/parameterization.h"

namespace at {
struct Generator;
}

namespace brume {

/// A model as an objective sees it: differentiable, one sigma an image.
class TrainableModel {
 public:
  virtual ~TrainableModel() = default;
  /// F(c_in x, c_noise, condition) in float32. x: [B, ...], x = x0 + sigma * noise.
  virtual Tensor network(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const = 0;
  virtual const NoiseSchedule& schedule() const = 0;
  virtual const Parameterization& parameterization() const = 0;
};

/// Draws sigmas, weights the error and returns the loss.
class Objective {
 public:
  static constexpr std::string_view kind = "objective";
  virtual ~Objective() = default;
  /// Scalar float32 loss, the mean over the batch. x0: [B, C, H, W]; `random`: a CPU generator, the only randomness.
  virtual Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, at::Generator& random) const = 0;
};

/// Whose error is measured. An error of x0 is one of noise times -sigma, and one of v times -sigma / sqrt(1 + sigma^2).
enum class Target { noise, image, v };

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
