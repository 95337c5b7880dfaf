#pragma once
// Where random numbers come from: never from a global seed.
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "brume/core/seed.h"
#include "brume/core/tensor.h"

namespace brume {

/// The noise of one run. Drawn on the host by the standard CPU generator, so that it is the same on every device.
class Noise {
 public:
  virtual ~Noise() = default;
  /// N(0, 1) of the shape, dtype and device of `like`, for the step from sigma `from` to `to`.
  virtual Tensor draw(const Tensor& like, double from, double to) = 0;
};

/// One stream an image, seeded by (seed, index of the image): what image i gets depends on nothing but i.
/// `first` is the index of the first image of the batch.
std::unique_ptr<Noise> per_image_noise(uint64_t seed, int64_t first);

/// One generator and one draw over the whole batch, as PyTorch users have it: torch.Generator().manual_seed(seed).
std::unique_ptr<Noise> batch_noise(uint64_t seed);

/// Increments of one Brownian path an image, in log sigma: what is drawn for a step of the run is the same path whatever the other
/// steps are, so that a solver of the SDE converges to one result as its steps grow in number (Li et al. 2020, alg. 3: a virtual
/// tree of Brownian bridges, which keeps nothing). Steps of no length get noise of their own.
std::unique_ptr<Noise> brownian_noise(uint64_t seed, int64_t first);

}  // namespace brume
