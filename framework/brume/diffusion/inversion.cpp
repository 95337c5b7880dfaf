#include "brume/diffusion/inversion.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/core/boundary.h"
#include "brume/numerics/timesteps.h"

namespace brume {
namespace {

/// Returns the sigmas of sampling, upwards. The first is the schedule's smallest sigma instead of 0: its noise is invisible.
std::vector<double> upwards(std::vector<double> sigmas, const NoiseSchedule& schedule) {
  const double least = schedule.sigma(schedule.t_min());
  std::reverse(sigmas.begin(), sigmas.end());
  if (sigmas.front() < least) sigmas.front() = least;
  if (sigmas.size() > 1 && sigmas[1] <= sigmas[0]) sigmas.erase(sigmas.begin());  // the spacing ends with the smallest itself
  return sigmas;
}

}  // namespace

Tensor invert(const Pipeline& model, const InversionRequest& request, const SampleOptions& options) {
  const at::NoGradGuard no_grad;
  const ModelOptions& m = model.options();
  if (options.sampler->traits().order == 0)
    throw ConfigError(
        "sample.sampler: adds noise, and an image cannot be followed back through it; take a deterministic one, like ddim at eta 0");
  options.check(m);
  const int64_t count = int64_t(request.annotations.size());
  if (request.images.sizes() != at::IntArrayRef({count, m.image.channels, m.image.height, m.image.width}))
    throw ConfigError(fmt::format("the images have shape [{}], and the model makes [{}, {}, {}, {}]",
                                  fmt::join(request.images.sizes(), ", "), count, m.image.channels, m.image.height, m.image.width));
  const std::vector<double> sigmas = upwards(distinct_levels(checked_sigmas(*options.spacing, *m.noise, options.steps)), *m.noise);
  const auto denoiser = model.denoiser();
  std::vector<Tensor> all;
  for (int64_t first = 0; first < count; first += request.batch) {
    const int64_t n = std::min(request.batch, count - first);
    const Condition condition = model.condition({request.annotations.begin() + first, request.annotations.begin() + first + n});
    const auto noise = per_image_noise(0, first);  // a deterministic sampler draws none
    Run run{condition, *noise, {}, m.noise.get()};
    if (request.observer) run.observer = [&](const Step& step) { return request.observer(first, step); };
    const Tensor moments = checked_moments(model.autoencoder(), request.images.narrow(0, first, n).to(model.compute().device));
    const Tensor x = model.autoencoder().latents_of(moments, Autoencoder::Normal());
    const Tensor latent = calling(*options.sampler, "sample()", [&] { return options.sampler->sample(*denoiser, x, sigmas, run); });
    expect_shape(options.sampler.get(), "sample()", latent, x.sizes().vec());
    all.push_back((latent / m.noise->start_std(sigmas.back())).to(at::kFloat).cpu());
  }
  const ImageShape z = model.latent();
  return all.empty() ? at::empty({0, z.channels, z.height, z.width}) : at::cat(all);
}

Tensor reconstruction_error(const Tensor& images, const Tensor& others) {
  return ((images - others).to(at::kDouble) / 2).square().flatten(1).mean(1);
}

}  // namespace brume
