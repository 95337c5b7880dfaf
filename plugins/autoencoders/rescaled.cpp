// Pixel space in other units than [-1, 1]: networks of the variance-exploding SDE (Song et al. 2021b) know images in [0, 1].
//
//   latent = scale (image - shift)
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/core/autoencoder.h"

namespace brume::plugins {
namespace {

class Rescaled final : public Autoencoder {
 public:
  static constexpr bool weightless = true;
  struct Options {
    double scale = 0.5, shift = -1;
    void declare(Fields& f) {
      f.field("scale", scale, "factor of the pixels; with shift -1, 0.5 makes [0, 1] of [-1, 1]", more_than(0));
      f.field("shift", shift, "value that is subtracted from the pixels before");
    }
  };
  Rescaled(const Options& o, const Context&) : o_(o) {}
  ImageShape latent(const ImageShape& image) const override { return image; }
  Tensor encode_moments(const Tensor& images) const override { return (images - o_.shift) * o_.scale; }
  Tensor decode(const Tensor& latents) const override { return latents / o_.scale + o_.shift; }
  std::vector<Weight> weights() const override { return {}; }

 private:
  Options o_;
};

}  // namespace

void register_autoencoder_rescaled(Registry& r) { r.add<Autoencoder, Rescaled>("rescaled", "pixel space in other units, such as [0, 1]"); }

}  // namespace brume::plugins
