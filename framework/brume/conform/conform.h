#pragma once
// The laws of each plugin kind, measured against data and models that are known in closed form (docs/design.md, habit 11). No law
// reads a plugin's name.
#include <functional>
#include <memory>
#include <vector>

#include "brume/conform/law.h"
#include "brume/core/guidance.h"
#include "brume/core/noise_schedule.h"
#include "brume/core/objective.h"
#include "brume/core/parameterization.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"

namespace brume {

/// Measures the order of convergence, inversion, the final distribution, a single step, independence of batch and threads.
std::vector<Finding> conform(const Sampler& sampler);
/// Measures that sigma increases, that time is its inverse, and that signal, noise and start agree.
std::vector<Finding> conform(const NoiseSchedule& schedule);
/// Measures the sigmas of 1, 2, 10 and 50 steps, of as many as there are training times and of more.
std::vector<Finding> conform(const Spacing& spacing, const NoiseSchedule& schedule);
/// Measures the training target, the limits of c_skip and c_out, and the size of the network's input.
std::vector<Finding> conform(const Parameterization& parameterization, const NoiseSchedule& schedule);
/// Measures that the loss is least for the exact model, its gradients, and its noise. The objective's teacher is a model that knows
/// the images.
std::vector<Finding> conform(const Objective& objective);

/// Returns the same guidance at another scale; null if it does not allow that scale. Empty = it has no scale.
using GuidanceAtScale = std::function<std::shared_ptr<const Guidance>(double scale)>;
/// Measures that a guidance steers towards the condition, changes nothing if there is nothing to steer by, and treats each image
/// alone. Models and classifiers that it opens are exact ones of a mixture of Gaussians.
std::vector<Finding> conform(const Guidance& guidance, const GuidanceAtScale& at_scale);

/// The order of convergence of a deterministic sampler, fitted to its errors with 24, 48, 96 and 192 steps.
struct Convergence {
  double order = 0;  ///< -d log error / d log steps
  double error = 0;  ///< relative, with 192 steps
};
Convergence convergence(const Sampler& sampler, const Denoiser& data);

}  // namespace brume
