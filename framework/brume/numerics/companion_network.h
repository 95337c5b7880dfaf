#pragma once
// Networks that an objective trains with the model.
#include <memory>
#include <vector>

#include "brume/core/joint_objective.h"

namespace brume {
class Spacing;

/// Returns a discriminator of the model's latents: one logit per place, of x and, if `pairs`, of a second x in Condition::image; it knows
/// the noise level and the class. Throws ConfigError if the network does not fit.
std::shared_ptr<Network> make_discriminator(const Deferred<Network>& network, const JointObjective::Context& model, bool pairs);

/// A network like the model's, in the model's frame.
class CompanionModel final : public TrainableModel {
 public:
  /// Puts `network` into the frame of `model`, which must outlive it.
  CompanionModel(const TrainableModel& model, std::shared_ptr<const Network> network, at::ScalarType dtype)
      : model_(model), network_(std::move(network)), dtype_(dtype) {}
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const override;
  const NoiseSchedule& schedule() const override { return model_.schedule(); }
  const Parameterization& parameterization() const override { return model_.parameterization(); }

 private:
  const TrainableModel& model_;
  std::shared_ptr<const Network> network_;
  at::ScalarType dtype_;
};

/// Moves weights to the device of the model.
void move_to(const std::vector<Weight>& weights, at::Device device);

/// Returns c_noise of a network at each sigma, [B] float32.
Tensor noise_inputs(const Network& network, const std::vector<double>& sigmas, const NoiseSchedule& schedule);

/// Returns the condition that a discriminator knows: the classes, and `image`.
Condition class_condition(const Condition& condition, const Tensor& image = {});

/// Returns D(x) = c_skip x + c_out F of the model, [B, ...] float32.
Tensor denoised(const TrainableModel& model, const Tensor& x, const std::vector<double>& sigmas, const Condition& condition);

/// Returns D(x0 + sigma noise, sigma) of the model, sigma drawn per image from the first levels of as many steps of a spacing: what a
/// few-step generator makes in training, [B, ...] float32.
Tensor few_step_images(const TrainableModel& model, const Spacing& spacing, int64_t steps, const Tensor& x0, const Condition& condition,
                       at::Generator& random);

}  // namespace brume
