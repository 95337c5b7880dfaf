#pragma once
// Checks what plugins return at the point at which it enters brume.
#include <string_view>
#include <vector>

#include "brume/config/foreign.h"
#include "brume/core/autoencoder.h"
#include "brume/core/tensor.h"

namespace brume {
class NoiseSchedule;
class Spacing;

/// Throws as blame() does if `function` returned an undefined tensor or one of another shape. `plugin`: as for plugin_name().
void expect_shape(const void* plugin, std::string_view function, const Tensor& returned, const std::vector<int64_t>& shape);

/// Throws as blame() does if a loss is undefined, no scalar, or, while gradients are recorded, depends on no weight.
void expect_loss(const void* plugin, std::string_view function, const Tensor& loss);

/// Throws as blame() does if sigma(t) of a plugin library's schedule falls, is not finite or not above 0 somewhere.
void expect_schedule(const NoiseSchedule& schedule);

/// Returns the spacing's sigmas. Throws as blame() does if a plugin library's are not `steps` + 1 numbers that do not rise.
std::vector<double> checked_sigmas(const Spacing& spacing, const NoiseSchedule& schedule, int64_t steps);

/// Calls encode_moments() and decode(), unless the work of this thread is to stop. Throws as blame() does if the shape is another one:
/// that of moments() of the images, [B, image.channels, image.height, image.width].
Tensor checked_moments(const Autoencoder& autoencoder, const Tensor& images);
Tensor checked_images(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image);

}  // namespace brume
