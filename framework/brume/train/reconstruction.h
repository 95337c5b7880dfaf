#pragma once
// How well a first stage gives images back, and what its latents are like.
#include <functional>
#include <memory>

#include "brume/core/autoencoder.h"

namespace brume {

/// Figures of a set of images. Grows batch by batch; the images are not kept.
class ReconstructionScores {
 public:
  /// Adds a batch. images: [B, C, H, W] in [-1, 1]; latents: scaled or not, as they are to be measured.
  void add(const Tensor& images, const Tensor& reconstructed, const Tensor& latents);
  int64_t images() const { return images_; }
  double psnr() const { return psnr_ / double(images_); }  ///< mean of the images', as 8-bit pictures, in dB
  double ssim() const { return ssim_ / double(images_); }
  double latent_mean() const { return sum_ / count_; }
  double latent_std() const;

 private:
  int64_t images_ = 0;
  double psnr_ = 0, ssim_ = 0, sum_ = 0, squares_ = 0, count_ = 0;
};

/// Reads `count` images spread evenly over a set (its first ones if it is endless), in batches of at most `batch`; stops if `take`
/// returns false.
void for_spread(const Dataset& data, const ImageShape& shape, int64_t count, int64_t batch, const std::function<bool(const Tensor&)>& take);

/// Mean and standard deviation of latents.
struct LatentSpread {
  double mean = 0, std = 1;
};
/// Returns that of the latents of `count` images spread over a set, drawn if there is something to draw, from a seed of its own.
LatentSpread latent_spread(const Autoencoder& autoencoder, at::Device device, const Dataset& data, const ImageShape& shape, int64_t count,
                           int64_t batch);

}  // namespace brume
