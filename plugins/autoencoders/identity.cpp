// Pixel space: the latent is the image.
#include "brume/config/registry.h"
#include "brume/core/autoencoder.h"

namespace brume::plugins {
namespace {

class Identity final : public Autoencoder {
 public:
  static constexpr bool weightless = true, neutral = true;
  struct Options {
    void declare(Fields&) {}
  };
  Identity(const Options&, const Context&) {}
  ImageShape latent(const ImageShape& image) const override { return image; }
  Tensor encode_moments(const Tensor& images) const override { return images; }
  Tensor decode(const Tensor& latents) const override { return latents; }
  std::vector<Weight> weights() const override { return {}; }
};

}  // namespace

void register_autoencoder_identity(Registry& r) { r.add<Autoencoder, Identity>("identity", "pixel space: the latent is the image"); }

}  // namespace brume::plugins
