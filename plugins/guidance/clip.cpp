// Keeps the estimate of x0 within the range of images (Ho et al. 2020's code; "clip_denoised", "clip_sample").
#include <ATen/ops/clamp.h>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

class ClipDenoiser final : public Denoiser {
 public:
  ClipDenoiser(std::shared_ptr<const Denoiser> inner, double range, bool keep) : inner_(std::move(inner)), range_(range), keep_(keep) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    Estimate d = inner_->denoise(x, sigma, condition);
    if (keep_ && !d.x0_uncond.defined()) d.x0_uncond = d.x0;
    d.x0 = d.x0.clamp(-range_, range_);
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  double range_;
  bool keep_;
};

class Clip final : public Guidance {
 public:
  struct Options {
    double range = 1;
    bool keep_direction = false;
    void declare(Fields& f) {
      f.field("range", range, "x0 is clamped to [-range, range]", more_than(0));
      f.field("keep_direction", keep_direction, "take the direction of the noise from the unclipped x0 (diffusers' DDIM)");
    }
  };
  explicit Clip(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.sets_direction = o_.keep_direction, .place = GuidancePlace::clip}; }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<ClipDenoiser>(std::move(inner), o_.range, o_.keep_direction);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_clip(Registry& r) { r.add<Guidance, Clip>("clip", "clamps the estimate of x0"); }

}  // namespace brume::plugins
