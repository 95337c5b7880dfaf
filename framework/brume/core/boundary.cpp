#include "brume/core/boundary.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "brume/config/counted.h"
#include "brume/core/interruption.h"
#include "brume/core/noise_schedule.h"
#include "brume/core/spacing.h"

namespace brume {

void expect_shape(const void* plugin, std::string_view function, const Tensor& returned, const std::vector<int64_t>& shape) {
  if (!returned.defined()) blame(plugin, fmt::format("{} returned an undefined tensor, expected [{}]", function, fmt::join(shape, ", ")));
  if (returned.sizes() != at::IntArrayRef(shape))
    blame(plugin, fmt::format("{} returned [{}], expected [{}]", function, fmt::join(returned.sizes(), ", "), fmt::join(shape, ", ")));
}

void expect_loss(const void* plugin, std::string_view function, const Tensor& loss) {
  if (!loss.defined()) blame(plugin, fmt::format("{} returned an undefined tensor, expected a scalar", function));
  if (loss.numel() != 1) blame(plugin, fmt::format("{} returned [{}], expected a scalar", function, fmt::join(loss.sizes(), ", ")));
  if (at::GradMode::is_enabled() && !loss.requires_grad())
    blame(plugin, fmt::format("{} returned a loss that depends on no trainable weight (a detached tensor?)", function));
}

void expect_schedule(const NoiseSchedule& schedule) {
  if (plugin_name(&schedule).empty()) return;
  const double lo = calling(schedule, "t_min()", [&] { return schedule.t_min(); });
  const double hi = calling(schedule, "t_max()", [&] { return schedule.t_max(); });
  if (!(lo < hi) || !std::isfinite(lo) || !std::isfinite(hi)) blame(&schedule, fmt::format("its times go from {} to {}", lo, hi));
  constexpr int intervals = 256;
  double before = 0, t_before = lo;
  for (int i = 0; i <= intervals; ++i) {
    const double t = lo + (hi - lo) * i / intervals, sigma = calling(schedule, "sigma()", [&] { return schedule.sigma(t); });
    if (!(sigma > 0) || !std::isfinite(sigma))
      blame(&schedule, fmt::format("sigma({:.6g}) is {:.6g}, expected a number above 0", t, sigma));
    if (sigma < before)
      blame(&schedule,
            fmt::format("sigma falls from {:.6g} at time {:.6g} to {:.6g} at time {:.6g}; it must rise", before, t_before, sigma, t));
    before = sigma, t_before = t;
  }
}

std::vector<double> checked_sigmas(const Spacing& spacing, const NoiseSchedule& schedule, int64_t steps) {
  std::vector<double> sigmas = calling(spacing, "sigmas()", [&] { return spacing.sigmas(schedule, steps); });
  if (plugin_name(&spacing).empty()) return sigmas;
  if (int64_t(sigmas.size()) != steps + 1)
    blame(&spacing,
          fmt::format("sigmas() returned {} for {}, expected {}", counted(sigmas.size(), "number"), counted(steps, "step"), steps + 1));
  for (size_t i = 0; i < sigmas.size(); ++i) {
    if (!std::isfinite(sigmas[i]) || sigmas[i] < 0) blame(&spacing, fmt::format("sigmas() returned {} as number {}", sigmas[i], i));
    if (i > 0 && sigmas[i] > sigmas[i - 1])
      blame(&spacing, fmt::format("sigmas() returned numbers that rise: {:.6g}, then {:.6g}; they must fall", sigmas[i - 1], sigmas[i]));
  }
  return sigmas;
}

Tensor checked_moments(const Autoencoder& autoencoder, const Tensor& images) {
  stop_if_asked();
  const Tensor moments = calling(autoencoder, "encode_moments()", [&] { return autoencoder.encode_moments(images); });
  const ImageShape m = autoencoder.moments({images.size(1), images.size(2), images.size(3)});
  expect_shape(&autoencoder, "encode_moments()", moments, {images.size(0), m.channels, m.height, m.width});
  return moments;
}

Tensor checked_images(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image) {
  stop_if_asked();
  const Tensor images = calling(autoencoder, "decode()", [&] { return autoencoder.decode(latents); });
  expect_shape(&autoencoder, "decode()", images, {latents.size(0), image.channels, image.height, image.width});
  return images;
}

}  // namespace brume
