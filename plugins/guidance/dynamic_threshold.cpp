// Dynamic thresholding (Saharia et al. 2022, Imagen, sec. 2.3): per image, s = a quantile of |x0|, at least 1;
//
//   x0 <- clamp(x0, -s, s) / s
#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/quantile.h>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

struct ThresholdOptions {
  double quantile = 0.995, maximum = 1;
  bool keep_direction = false;
};

class ThresholdDenoiser final : public Denoiser {
 public:
  ThresholdDenoiser(std::shared_ptr<const Denoiser> inner, const ThresholdOptions& o) : inner_(std::move(inner)), o_(o) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    Estimate d = inner_->denoise(x, sigma, condition);
    if (o_.keep_direction && !d.x0_uncond.defined()) d.x0_uncond = d.x0;
    const Tensor flat = d.x0.reshape({d.x0.size(0), -1});
    const Tensor s = flat.abs().quantile(o_.quantile, 1, true).clamp(1, o_.maximum);
    d.x0 = (at::maximum(at::minimum(flat, s), -s) / s).view_as(d.x0);
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  ThresholdOptions o_;
};

class DynamicThreshold final : public Guidance {
 public:
  struct Options : ThresholdOptions {
    void declare(Fields& f) {
      f.field("quantile", quantile, "quantile of |x0| within an image", within(0, 1));
      f.field("maximum", maximum, "upper bound of the threshold; below 1 it is the threshold", more_than(0));
      f.unused(maximum <= 1, "quantile", "maximum is 1 or less, and is the threshold");
      f.field("keep_direction", keep_direction, "take the direction of the noise from the untouched x0 (diffusers' DDIM)");
    }
  };
  explicit DynamicThreshold(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.sets_direction = o_.keep_direction, .place = GuidancePlace::clip}; }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<ThresholdDenoiser>(std::move(inner), o_);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_dynamic_threshold(Registry& r) {
  r.add<Guidance, DynamicThreshold>("dynamic_threshold", "rescales x0 by a quantile of its values (Imagen)");
}

}  // namespace brume::plugins
