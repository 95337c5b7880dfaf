// CFG++ (Chung et al. 2024, alg. 2): the guided estimate lies between the two, and the noise that is put back is the unconditional one's,
// so that x stays near the data that the model knows.
//
//   D = D_uncond + scale (D_cond - D_uncond),   0 <= scale <= 1 in the paper
//   x' = D + (to / from) (x - D_uncond)          the sampler's, from `x0_uncond`
//
// Samplers that do not take the direction from `x0_uncond` are refused.
#include "brume/config/registry.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

class CfgPlusPlusDenoiser final : public Denoiser {
 public:
  CfgPlusPlusDenoiser(std::shared_ptr<const Denoiser> inner, double scale) : inner_(std::move(inner)), scale_(scale) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "cfg_plus_plus");
    Estimate d = e.with;
    d.x0 = extrapolate(e.without.x0, e.with.x0, scale_);
    d.gradient = extrapolate(e.without.gradient, e.with.gradient, scale_);
    d.x0_uncond = e.without.x0_uncond.defined() ? e.without.x0_uncond : e.without.x0;
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  double scale_;
};

class CfgPlusPlus final : public Guidance {
 public:
  struct Options {
    double scale = 0.6;
    void declare(Fields& f) {
      f.field("scale", scale, "0 = the unconditional model, 1 = the conditional estimate, more = further (ComfyUI)", at_least(0));
    }
  };
  explicit CfgPlusPlus(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.needs_direction = true, .uses_null = true}; }
  void check(const Controls& controls) const override { need_null(controls, "cfg_plus_plus"); }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<CfgPlusPlusDenoiser>(std::move(inner), o_.scale);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_cfg_plus_plus(Registry& r) {
  r.add<Guidance, CfgPlusPlus>("cfg_plus_plus", "CFG++: guided estimate, unconditional direction");
}

}  // namespace brume::plugins
