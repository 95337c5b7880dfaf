#pragma once
// Random numbers of a run: never from a global seed.
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
  /// Returns N(0, 1) of the shape, dtype and device of `like`, for the step from sigma `from` to `to`.
  virtual Tensor draw(const Tensor& like, double from, double to) = 0;
};

/// Returns one stream per image, seeded by (seed, index of the image): the noise of image i depends on i alone.
/// `first` is the index of the first image of the batch.
std::unique_ptr<Noise> per_image_noise(uint64_t seed, int64_t first);

/// Returns one generator and one draw over the whole batch, as PyTorch users have it: torch.Generator().manual_seed(seed).
std::unique_ptr<Noise> batch_noise(uint64_t seed);

/// Increments of one Brownian path per image, in log sigma: the path does not depend on the steps, so that a solver of the SDE
/// converges to one result as the number of steps grows (Li et al. 2020, alg. 3: a virtual tree of Brownian bridges, which stores
/// nothing). Steps of length 0 get independent noise.
std::unique_ptr<Noise> brownian_noise(uint64_t seed, int64_t first);

}  // namespace brume
