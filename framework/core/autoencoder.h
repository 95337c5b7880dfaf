#pragma once
#include <string_view>
#include <vector>

#include "core/dataset.h"
#include "core/network.h"

namespace brume {

/// The first stage: images to scaled latents and back. Pixel space is the identity.
class Autoencoder {
 public:
  static constexpr std::string_view kind = "autoencoder";
  struct Context {
    ImageShape image;
    uint64_t seed = 0;
    bool weights_follow = false;  ///< they are copied in from a checkpoint afterwards: files of weights need not be there
  };
  virtual ~Autoencoder() = default;
  virtual ImageShape latent() const = 0;                   ///< shape of the latent of one image
  virtual Tensor encode(const Tensor& images) const = 0;   ///< [B, C, H, W] in [-1, 1] to latents of unit-like scale
  virtual Tensor decode(const Tensor& latents) const = 0;  ///< the inverse
  virtual std::vector<Weight> weights() const = 0;
};

}  // namespace brume
