#pragma once
// D(x, sigma, condition): all that a sampler knows of a model.
#include <memory>

#include "brume/core/condition.h"

namespace brume {

/// What the network predicts besides F, in as many further channels.
enum class LearnedVariance {
  none,
  learned,       ///< log var of the ancestral step, in the network's frame
  learned_range  ///< 2 v - 1 of log var = v log upper + (1 - v) log lower (Nichol & Dhariwal 2021, eq. 15)
};

/// A denoiser's estimate at x = x0 + sigma * noise.
struct Estimate {
  Tensor x0;         ///< E[x0 | x], the shape and dtype of x
  Tensor x0_uncond;  ///< the unguided estimate, if a guidance keeps it apart (cfg++)
  Tensor variance;   ///< as LearnedVariance says, if the model has one; the shape of x
  /// scale * grad_x log p(y | x), the shape of x, if a classifier guidance keeps it apart for the ancestral sampler, which
  /// shifts its mean by variance times it (Dhariwal & Nichol 2021, alg. 1). x0 includes sigma^2 times it already.
  Tensor gradient{};
};

/// `const` and safe to call from several threads at once.
class Denoiser {
 public:
  static constexpr std::string_view kind = "denoiser";
  virtual ~Denoiser() = default;
  /// Returns the estimate of x0, differentiable in x if x requires a gradient. x: [B, C, H, W] (any rank with the batch first), x = x0 +
  /// sigma * noise; sigma > 0.
  virtual Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const = 0;
};

}  // namespace brume
