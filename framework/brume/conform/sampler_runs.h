#pragma once
// Runs of a sampler on data that are known in closed form: what its laws and its error at equal numbers of network calls are measured on.
#include <vector>

#include "brume/core/sampler.h"

namespace brume {

/// Returns steps + 1 levels from `first` to `last`, evenly in sigma^(1/7).
std::vector<double> curved_levels(double first, double last, int64_t steps);
/// Returns steps + 1 levels: `steps` levels from `first` to `last`, then 0. One step goes from `first` to 0.
std::vector<double> curved_levels_to_zero(double first, double last, int64_t steps);

/// Returns x at the last of the sigmas. x: [B, ...]; image i of the batch draws the noise of image `first` + i.
Tensor run_sampler(const Sampler& sampler, const Denoiser& data, const Tensor& x, const std::vector<double>& sigmas, uint64_t seed = 1,
                   int64_t first = 0);

/// Takes each number of x, of any shape, for a point of one-dimensional data: one image of many points draws its noise at once.
class PointsAsImage final : public Denoiser {
 public:
  /// `data`: a denoiser of x, [B, 1]; must outlive this one.
  explicit PointsAsImage(const Denoiser& data) : data_(data) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override;

 private:
  const Denoiser& data_;
};

}  // namespace brume
