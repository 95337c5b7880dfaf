// Perp-Neg (Armandpour et al. 2023, "Re-imagine the negative prompt algorithm", eq. 8): away from what the negative prompt adds and the
// prompt does not ask for. With the estimates of the prompt D_p, of the negative prompt D_n and of the empty prompt D_0:
//
//   p = D_p - D_0,   n = D_n - D_0,   D = D_0 + scale (p - negative_scale (n - (<n, p> / |p|^2) p))   per image
//
// Without a negative prompt it is cfg.
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/numerics/guidance_scale.h"
#include "brume/numerics/per_image.h"

namespace brume::plugins {
namespace {

struct PerpNegOptions : GuidanceScale {
  PerpNegOptions() { scale = 8; }
  double negative_scale = 1;
};

class PerpNegDenoiser final : public Denoiser {
 public:
  PerpNegDenoiser(std::shared_ptr<const Denoiser> inner, const PerpNegOptions& o, const GuidedModel& model)
      : inner_(std::move(inner)), o_(o), scale_(o, model.schedule) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double scale = scale_(sigma);
    if (scale == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "perp_neg");
    const Condition* empty = condition.null->null.get();
    const Tensor without = empty ? inner_->denoise(x, sigma, *empty).x0 : e.without.x0;
    Estimate d = e.with;
    d.x0 = extrapolate(without, e.with.x0, scale);
    d.gradient = extrapolate(e.without.gradient, e.with.gradient, scale);
    if (!empty || o_.negative_scale == 0) return d;
    const Tensor wanted = e.with.x0 - without, unwanted = e.without.x0 - without;
    d.x0 = d.x0 - (unwanted - image_parallel(unwanted, wanted)) * (scale * o_.negative_scale);
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  PerpNegOptions o_;
  ScaleAt scale_;
};

class PerpNeg final : public Guidance {
 public:
  struct Options : PerpNegOptions {
    void declare(Fields& f) {
      GuidanceScale::declare(f, "scale of cfg, from the empty prompt; 1 = the conditional model");
      f.field("negative_scale", negative_scale, "share of the negative prompt that is taken away; 0 = cfg", at_least(0));
    }
  };
  explicit PerpNeg(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = o_.steers(), .uses_empty = o_.steers()}; }
  void check(const Controls& controls) const override {
    if (o_.steers()) need_null(controls, "perp_neg");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<PerpNegDenoiser>(std::move(inner), o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_perp_neg(Registry& r) {
  r.add<Guidance, PerpNeg>("perp_neg", "away from the part of a negative prompt that is at right angles to the prompt (Perp-Neg)");
}

}  // namespace brume::plugins
