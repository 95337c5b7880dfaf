#include "brume/diffusion/run_noise.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include "brume/core/foreign_noise.h"

namespace brume {

std::unique_ptr<Noise> noise_of(const SampleOptions& options, const SampleRequest& request, int64_t first, int64_t count, uint64_t stream) {
  const bool cuda = options.noise_generator == NoiseGenerator::cuda;
  const bool per_seed = stream == 0 && options.noise_order == NoiseOrder::per_seed;
  const bool one_seed = per_seed && request.variation_seed && request.variation != 0;  // A1111 counts the seeds of variations on instead
  const auto of_run = [&](const ImageOfRun& image) {
    const uint64_t seed = stream ? mix_seed(image.seed, stream) : image.seed;
    if (per_seed) return seed_noise(seed, one_seed ? 0 : image.number, cuda);
    return stream == 0 && options.noise_order == NoiseOrder::brownian ? brownian_noise(seed, image.number)
                                                                      : per_image_noise(seed, image.number);
  };
  if (!request.runs.empty() || one_seed) {
    std::vector<std::unique_ptr<Noise>> rows;
    for (int64_t i = first; i < first + count; ++i)
      rows.push_back(of_run(request.runs.empty() ? ImageOfRun{request.seed, request.first + i} : request.runs[size_t(i)]));
    return noise_by_rows(std::move(rows));
  }
  if (stream == 0 && options.noise_order == NoiseOrder::batch) return cuda ? cuda_batch_noise(request.seed) : batch_noise(request.seed);
  return of_run({request.seed, request.first + first});
}

Tensor varied(const Tensor& noise, const SampleOptions& options, const SampleRequest& request, int64_t first) {
  if (!request.variation_seed || request.variation == 0) return noise;
  SampleRequest other;
  other.seed = *request.variation_seed;
  other.first = request.first;
  const Tensor blend = noise_of(options, other, first, noise.size(0))->draw(noise, 0, 0);
  // A1111 takes the angle of each column, others that of the image.
  return options.noise_order == NoiseOrder::per_seed ? slerp(noise, blend, request.variation, {2})
                                                     : slerp(noise, blend, request.variation, {1, 2, 3});
}

Tensor slerp(const Tensor& a, const Tensor& b, double t, at::IntArrayRef over) {
  if (t == 0) return a;
  const auto norm = [&](const Tensor& x) { return x.square().sum(over, true).sqrt(); };
  const Tensor cosine = (a * b).sum(over, true) / (norm(a) * norm(b)), angle = cosine.clamp(-1, 1).acos(), sine = angle.sin();
  const Tensor round = a * (((1 - t) * angle).sin() / sine) + b * ((t * angle).sin() / sine);
  return at::where(cosine > 0.9995, a * (1 - t) + b * t, round);
}

}  // namespace brume
