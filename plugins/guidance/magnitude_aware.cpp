// Magnitude-aware guidance (MAMBO-G, Zhu et al. 2025, eq. 8): a scale per image that falls where the estimates differ much.
//
//   D = D_uncond + scale' (D_cond - D_uncond),   scale' = 1 + (scale - 1) exp(-alpha |q_cond - q_uncond| / |q_uncond|)
//
// q is the velocity of flow matching, the noise, or x0.
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/numerics/guidance_scale.h"
#include "brume/numerics/per_image.h"

namespace brume::plugins {
namespace {

enum class Quantity { velocity, noise, x0 };

struct MagnitudeOptions : GuidanceScale {
  MagnitudeOptions() { scale = 5; }
  double alpha = 8;
  Quantity quantity = Quantity::velocity;
};

class MagnitudeDenoiser final : public Denoiser {
 public:
  MagnitudeDenoiser(std::shared_ptr<const Denoiser> inner, const MagnitudeOptions& o, const GuidedModel& model)
      : inner_(std::move(inner)), o_(o), scale_(o, model.schedule) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double largest = scale_(sigma);
    if (largest == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "magnitude_aware");
    const Tensor difference = e.with.x0 - e.without.x0;
    const double frame = o_.quantity == Quantity::velocity ? 1 / (1 + sigma) : 1;
    const Tensor size = image_norm(o_.quantity == Quantity::x0 ? e.without.x0 : x * frame - e.without.x0);
    const Tensor ratio = (image_norm(difference) / size).masked_fill(size == 0, 0), scale = (ratio * -o_.alpha).exp() * (largest - 1) + 1;
    Estimate d = e.with;
    d.x0 = e.without.x0 + difference * scale;
    if (d.gradient.defined()) d.gradient = e.without.gradient + (e.with.gradient - e.without.gradient) * scale;
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  MagnitudeOptions o_;
  ScaleAt scale_;
};

class MagnitudeAware final : public Guidance {
 public:
  struct Options : MagnitudeOptions {
    void declare(Fields& f) {
      GuidanceScale::declare(f, "largest scale; 1 = the conditional model");
      f.field("alpha", alpha, "fall of the scale with the difference; 0 = cfg", at_least(0));
      f.choice("quantity", quantity, "what the difference is measured in",
               {{"velocity", Quantity::velocity}, {"noise", Quantity::noise}, {"x0", Quantity::x0}});
      f.unused(!steers(), {"alpha", "quantity"}, "scale is 1");
      f.unused(alpha == 0, "quantity", "alpha is 0");
    }
  };
  explicit MagnitudeAware(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = o_.steers()}; }
  void check(const Controls& controls) const override {
    if (o_.steers()) need_null(controls, "magnitude_aware");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<MagnitudeDenoiser>(std::move(inner), o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_magnitude_aware(Registry& r) {
  r.add<Guidance, MagnitudeAware>("magnitude_aware", "cfg with a scale by the size of the difference (MAMBO-G)");
}

}  // namespace brume::plugins
