#include "brume/train/validation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/sum.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/core/autoencoder.h"
#include "brume/core/codes.h"
#include "brume/core/denoiser.h"
#include "brume/core/noise.h"
#include "brume/diffusion/pipeline.h"
#include "brume/numerics/code_chain.h"
#include "brume/train/class_scores.h"

namespace brume {
namespace {

constexpr int64_t batch = 64;
constexpr uint64_t noise_stream = 24;  ///< under the training's seed

std::vector<double> sigmas_of(const NoiseSchedule& schedule, int64_t levels) {
  std::vector<double> all;
  const double from = schedule.t_min(), to = schedule.t_max();
  for (int64_t i = 0; i < levels; ++i) all.push_back(schedule.sigma(from + (double(i) + 0.5) / double(levels) * (to - from)));
  return all;
}

/// Returns the sum over the images of their mean squared error.
double summed_error(const Denoiser& denoiser, const Tensor& x0, double sigma, const Condition& condition, double unit, uint64_t seed,
                    int64_t first) {
  const Tensor noise = per_image_noise(seed, first)->draw(x0, sigma, 0);
  const Tensor error = (x0 - denoiser.denoise(x0 + noise * sigma, sigma, condition).x0) / unit;
  return error.to(at::kDouble).square().sum().item<double>() * double(x0.size(0)) / double(x0.numel());
}

/// Returns the sum over the images of their mean cross-entropy per code; with masks, per masked code.
double summed_cross_entropy(const Denoiser& denoiser, const Tensor& x0, double sigma, const Condition& condition, CodeKernel kernel,
                            double alpha, uint64_t seed, int64_t first) {
  const Tensor uniform = uniform_of(per_image_noise(seed, first)->draw(x0.narrow(1, 0, 1), sigma, 0));
  const Tensor x = corrupted(kernel, x0, std::vector<double>(size_t(x0.size(0)), alpha), uniform);
  Tensor error = code_cross_entropy(x0, denoiser.denoise(x, sigma, condition).x0);
  if (kernel == CodeKernel::absorbing) error = error * masked(x).squeeze(1) / (1 - alpha);
  return error.to(at::kDouble).sum().item<double>() * double(x0.size(0)) / double(error.numel());
}

}  // namespace

Metrics validation_losses(const Pipeline& model, const Dataset& data, const ValidationRequest& request, const std::function<bool()>& stop) {
  const ValidationOptions& options = request.options;
  const at::NoGradGuard no_grad;
  const bool encoded = data.encoded().has_value();
  const ImageShape shape = encoded ? data.encoded()->shape : model.options().image;
  const std::vector<double> sigmas = sigmas_of(*model.options().noise, options.levels);
  std::vector<double> sums(sigmas.size());
  int64_t images = 0;
  bool whole = true;
  const auto denoiser = model.denoiser();
  const OfCodes* codes = of_codes(*model.options().parameterization);
  const int64_t at_once = std::min(batch, request.at_once);
  for_each_batch(data, shape, at_once, options.images, [&](const Tensor& read, const std::vector<Annotation>& annotations) {
    const Tensor given = read.to(model.compute().device);
    const Autoencoder& first_stage = model.autoencoder();
    const Tensor x0 = encoded ? first_stage.latents_of(given, Autoencoder::Normal()) : first_stage.encode(given);
    const Condition condition = model.condition(annotations, request.reading);
    for (size_t i = 0; i < sigmas.size() && whole; ++i) {
      const uint64_t drawn = mix_seed(request.seed, noise_stream, i);
      const double unit = model.options().parameterization->c_out(sigmas[i]), alpha = code_rate(*model.options().noise, sigmas[i]);
      sums[i] += codes ? summed_cross_entropy(*denoiser, x0, sigmas[i], condition, codes->kernel().value(), alpha, drawn, images)
                       : summed_error(*denoiser, x0, sigmas[i], condition, unit, drawn, images);
      whole = !(stop && stop());
    }
    images += read.size(0);
    return whole;
  });
  if (!whole || images == 0) return {};
  Metrics all{{"validation_loss", 0}};
  for (size_t i = 0; i < sigmas.size(); ++i) {
    const double loss = sums[i] / double(images);
    all.front().second += loss / double(sigmas.size());
    all.emplace_back(fmt::format("validation_loss_{:.3g}", sigmas[i]), loss);
  }
  return all;
}

}  // namespace brume
