// CFG-Zero* (Fan et al. 2025, "CFG-Zero*: improved classifier-free guidance for flow matching models", alg. 1), on the velocity of flow
// matching, v = (y - D) / s, y = x / (1 + sigma), s = sigma / (1 + sigma).
//
//   v = a v_uncond + scale (v_cond - a v_uncond),   a = <v_cond, v_uncond> / |v_uncond|^2 per image
//
// In the first `zero_init_steps` of a run v = 0, so that D = y.
#include <ATen/TensorOperators.h>

#include <optional>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/core/run_memory.h"
#include "brume/numerics/guidance_scale.h"
#include "brume/numerics/per_image.h"

namespace brume::plugins {
namespace {

struct ZeroStarOptions : GuidanceScale {
  ZeroStarOptions() { scale = 5; }
  std::optional<double> factor{};
  int64_t zero_init_steps = 0;
};

class ZeroStarDenoiser final : public Denoiser {
 public:
  ZeroStarDenoiser(std::shared_ptr<const Denoiser> inner, const ZeroStarOptions& o, const GuidedModel& model)
      : inner_(std::move(inner)), o_(o), scale_(o, model.schedule) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double scale = scale_(sigma);
    if (scale == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "cfg_zero_star");
    Estimate d = e.with;
    d.gradient = extrapolate(e.without.gradient, e.with.gradient, scale);
    const Tensor y = x / (1 + sigma);
    if (RunMemory* run = RunMemory::current(); run && run->of<StepCounter>(this).at(sigma) < o_.zero_init_steps) {
      d.x0 = y;
      return d;
    }
    if (o_.factor == 1) {
      d.x0 = extrapolate(e.without.x0, e.with.x0, scale);
      return d;
    }
    const Tensor with = y - e.with.x0, without = y - e.without.x0, size = image_dot(without, without);  // s v
    const Tensor base = without * (o_.factor ? size * 0 + *o_.factor : (image_dot(with, without) / size).masked_fill(size == 0, 1));
    d.x0 = y - (base + (with - base) * scale);
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  ZeroStarOptions o_;
  ScaleAt scale_;
};

class CfgZeroStar final : public Guidance {
 public:
  struct Options : ZeroStarOptions {
    void declare(Fields& f) {
      GuidanceScale::declare(f, "1 = the conditional model, more = stronger");
      f.field("factor", factor, "factor of the unconditional velocity; null = the projection, 1 = cfg");
      f.field("zero_init_steps", zero_init_steps, "first steps of a run without velocity (1 in the paper, for flow matching)", at_least(0));
      f.unused(!steers(), {"factor", "zero_init_steps"}, "scale is 1");
    }
  };
  explicit CfgZeroStar(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = o_.steers()}; }
  void check(const Controls& controls) const override {
    if (o_.steers()) need_null(controls, "cfg_zero_star");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<ZeroStarDenoiser>(std::move(inner), o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_cfg_zero_star(Registry& r) {
  r.add<Guidance, CfgZeroStar>("cfg_zero_star", "CFG-Zero*: projected unconditional velocity, with zero-init");
}

}  // namespace brume::plugins
