// Inpainting: what is known of the image is not estimated but put in place. With z the clean latent of the given image and m the mask
// (1 = to be made):
//
//   D <- m D + (1 - m) z
//
// In x = x0 + sigma noise, a sampler that goes straight towards D = z and started from z + sigma noise stays at z + sigma noise, its noise
// unchanged: blending x with the noised image after every step (Song et al. 2021, app. I.2; Lugmayr et al. 2022, eq. 8), only without a
// second stream of noise. A sampler that adds noise draws from q(x_to | x_from, x0 = z), whose marginals are the same. The last step
// leaves z itself. A mask between 0 and 1 blends.
//
// Image and mask come with the run (brume sample --image FILE --mask FILE), which also starts the known region at z + sigma noise.
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

class InpaintDenoiser final : public Denoiser {
 public:
  explicit InpaintDenoiser(std::shared_ptr<const Denoiser> inner) : inner_(std::move(inner)) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (!condition.mask.defined() || !condition.known.defined())
      throw ConfigError("inpaint needs an image, and a mask of the part to generate");
    Estimate d = inner_->denoise(x, sigma, condition);
    const Tensor mask = condition.mask.to(x.scalar_type()), given = condition.known.to(x.scalar_type()) * (1 - mask);
    d.x0 = d.x0 * mask + given;
    if (d.x0_uncond.defined()) d.x0_uncond = d.x0_uncond * mask + given;
    if (d.gradient.defined()) d.gradient = d.gradient * mask;
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
};

class Inpaint final : public Guidance {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Inpaint(const Options&) {}
  GuidanceTraits traits() const override { return {.place = GuidancePlace::inpaint}; }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<InpaintDenoiser>(std::move(inner));
  }
};

}  // namespace

void register_guidance_inpaint(Registry& r) { r.add<Guidance, Inpaint>("inpaint", "keeps what is known of an image, makes the rest"); }

}  // namespace brume::plugins
