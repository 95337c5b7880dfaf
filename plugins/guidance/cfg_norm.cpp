// Classifier-free guidance whose estimate is no longer, in each place over the channels, than the conditional one (Qwen-Image's "CFG
// norm").
//
//   G = D_uncond + scale (D_cond - D_uncond),   D = strength clamp(|D_cond| / (|G| + 1e-8), 0, 1) G
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/numerics/guidance_scale.h"

namespace brume::plugins {
namespace {

class CfgNormDenoiser final : public Denoiser {
 public:
  CfgNormDenoiser(std::shared_ptr<const Denoiser> inner, ScaleAt scale, double strength)
      : inner_(std::move(inner)), scale_(std::move(scale)), strength_(strength) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double scale = scale_(sigma);
    if (scale == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "cfg_norm");
    const auto length = [](const Tensor& t) { return t.pow(2).sum(at::IntArrayRef({1}), true).sqrt(); };
    Estimate d = e.with;
    d.gradient = extrapolate(e.without.gradient, e.with.gradient, scale);
    const Tensor guided = extrapolate(e.without.x0, e.with.x0, scale);
    const Tensor allowed = length(e.with.x0), size = length(guided);
    d.x0 = guided * (allowed / (size + 1e-8)).masked_fill(size <= allowed * (1 + 1e-9), 1) * strength_;
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  ScaleAt scale_;
  double strength_;
};

class CfgNorm final : public Guidance {
 public:
  struct Options : GuidanceScale {
    Options() { scale = 4; }
    double strength = 1;
    void declare(Fields& f) {
      GuidanceScale::declare(f, "1 = the conditional model, more = stronger");
      f.field("strength", strength, "factor of the result", more_than(0));
      f.unused(!steers(), "strength", "scale is 1");
    }
  };
  explicit CfgNorm(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = o_.steers()}; }
  void check(const Controls& controls) const override {
    if (o_.steers()) need_null(controls, "cfg_norm");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<CfgNormDenoiser>(std::move(inner), ScaleAt(o_, model.schedule), o_.strength);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_cfg_norm(Registry& r) { r.add<Guidance, CfgNorm>("cfg_norm", "cfg no longer than the conditional estimate"); }

}  // namespace brume::plugins
