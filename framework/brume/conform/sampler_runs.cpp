#include "brume/conform/sampler_runs.h"

#include <cmath>

#include "brume/conform/exact_models.h"
#include "brume/numerics/beta_table.h"

namespace brume {

std::vector<double> curved_levels(double first, double last, int64_t steps) {
  std::vector<double> sigmas = linspace(std::pow(first, 1.0 / 7), std::pow(last, 1.0 / 7), steps + 1);
  for (double& s : sigmas) s = std::pow(s, 7);
  sigmas.back() = last;
  sigmas.front() = first;
  return sigmas;
}

std::vector<double> curved_levels_to_zero(double first, double last, int64_t steps) {
  std::vector<double> sigmas = curved_levels(first, last, steps - 1);
  sigmas.push_back(0);
  return sigmas;
}

Tensor run_sampler(const Sampler& sampler, const Denoiser& data, const Tensor& x, const std::vector<double>& sigmas, uint64_t seed,
                   int64_t first) {
  const Condition none;
  const auto noise = per_image_noise(seed, first);
  Run run{none, *noise, {}, cosine_times().get()};
  return sampler.sample(data, x, sigmas, run);
}

Estimate PointsAsImage::denoise(const Tensor& x, double sigma, const Condition& condition) const {
  Estimate d;
  d.x0 = data_.denoise(x.reshape({-1, 1}), sigma, condition).x0.view_as(x);
  return d;
}

}  // namespace brume
