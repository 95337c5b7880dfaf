#include "brume/train/reconstruction.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "brume/core/boundary.h"
#include "brume/core/interruption.h"
#include "brume/numerics/image_quality.h"
#include "brume/train/loader.h"

namespace brume {

void ReconstructionScores::add(const Tensor& images, const Tensor& reconstructed, const Tensor& latents) {
  const Tensor x = as_8_bits(images.cpu()), y = as_8_bits(reconstructed.to(at::kCPU, at::kFloat)), z = latents.to(at::kCPU, at::kDouble);
  images_ += x.size(0);
  psnr_ += brume::psnr(x, y).sum().item<double>();
  ssim_ += brume::ssim(x, y).sum().item<double>();
  sum_ += z.sum().item<double>();
  squares_ += z.pow(2).sum().item<double>();
  count_ += double(z.numel());
}

double ReconstructionScores::latent_std() const { return std::sqrt(std::max(0.0, squares_ / count_ - latent_mean() * latent_mean())); }

void for_spread(const Dataset& data, const ImageShape& shape, int64_t count, int64_t batch,
                const std::function<bool(const Tensor&)>& take) {
  const int64_t size = data.size(), all = size == 0 ? count : std::min(count, size);
  for (int64_t first = 0; first < all; first += batch) {
    stop_if_asked();
    const int64_t n = std::min(batch, all - first);
    const auto spread = [&](int64_t i) { return Pick{size == 0 ? first + i : (first + i) * size / all}; };
    if (!take(read_batch(data, shape, n, spread).images)) return;
  }
}

LatentSpread latent_spread(const Autoencoder& autoencoder, at::Device device, const Dataset& data, const ImageShape& shape, int64_t count,
                           int64_t batch) {
  const at::NoGradGuard no_grad;
  at::Generator random = at::detail::createCPUGenerator(0);
  double sum = 0, squares = 0, values = 0;
  for_spread(data, shape, count, batch, [&](const Tensor& images) {
    const Tensor z = autoencoder.latents_of(checked_moments(autoencoder, images.to(device)), &random).to(at::kCPU, at::kDouble);
    sum += z.sum().item<double>(), squares += z.pow(2).sum().item<double>(), values += double(z.numel());
    return true;
  });
  const double mean = sum / values;
  return {mean, std::sqrt(std::max(0.0, squares / values - mean * mean))};
}

}  // namespace brume
