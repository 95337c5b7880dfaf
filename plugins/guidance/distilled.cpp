// The scale of a guidance-distilled network (Meng et al. 2023, "On Distillation of Guided Diffusion Models"; FLUX.1-dev; latent consistency
// models): the network receives it as a condition and gives the guided estimate in one call.
//
//   D = D(x, sigma, c, scale)
#include <ATen/ops/full_like.h>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

class DistilledDenoiser final : public Denoiser {
 public:
  DistilledDenoiser(std::shared_ptr<const Denoiser> inner, double scale) : inner_(std::move(inner)), scale_(scale) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    return inner_->denoise(x, sigma, scaled(condition));
  }

 private:
  Condition scaled(Condition c) const {
    if (!c.guidance.defined())
      throw ConfigError(
          "distilled needs a model that takes a guidance scale (conditioner: guidance_scale), and this one takes none; cfg guides it");
    c.guidance = at::full_like(c.guidance, scale_);
    if (c.null) c.null = std::make_shared<const Condition>(scaled(*c.null));
    return c;
  }

  std::shared_ptr<const Denoiser> inner_;
  double scale_;
};

class Distilled final : public Guidance {
 public:
  struct Options {
    double scale = 3.5;
    void declare(Fields& f) {
      f.field("scale", scale, "the scale that the network imitates, instead of the one it was imported with", at_least(0));
    }
  };
  explicit Distilled(const Options& o) : o_(o) {}
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<DistilledDenoiser>(std::move(inner), o_.scale);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_distilled(Registry& r) {
  r.add<Guidance, Distilled>("distilled", "the scale of a network that was distilled from a guided one (FLUX.1-dev, LCM)");
}

}  // namespace brume::plugins
