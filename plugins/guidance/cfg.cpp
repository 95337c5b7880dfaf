// Classifier-free guidance (Ho & Salimans 2022): the same whether written on x0, the noise or v.
//
//   D = D_uncond + s (D_cond - D_uncond)
//
// Only within an interval of noise levels, sigma_lo < sigma <= sigma_hi (Kynkaanniemi et al. 2024); outside it s = 1, and the network
// is called once. `curve` changes the scale from step to step, `schedule` over the noise level (Wang et al. 2024, "Analysis of
// Classifier-Free Guidance Weight Schedulers"), with u = time(sigma) mapped onto [0, 1], 1 the noisiest, and the mean of s over time what
// it is when constant:
//
//   s = 1 + (scale - 1) f(u),   constant: f = 1,   linear: f = 2 (1 - u),   cosine: f = 1 + cos(pi u)
//
// Rescaling (Lin et al. 2024, sec. 3.4) gives the guided output F of the network the spread of the conditional one, per image:
//
//   F <- phi F std(F_cond) / std(F) + (1 - phi) F
//
// F is (D - c_skip x) / c_out, so in this frame it is D - c_skip x that is scaled, and c_out drops out.
//
// `channels` guides the first of them alone; the others are the conditional estimate. DiT (Peebles & Xie 2023) samples so.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <fmt/format.h>

#include <cmath>
#include <numbers>
#include <optional>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/numerics/guidance_scale.h"
#include "brume/numerics/per_image.h"

namespace brume::plugins {
namespace {

enum class Course { constant, linear, cosine };

struct CfgOptions : GuidanceScale {
  double rescale = 0;
  std::optional<int64_t> channels;
  Course schedule = Course::constant;
};

class CfgDenoiser final : public Denoiser {
 public:
  CfgDenoiser(std::shared_ptr<const Denoiser> inner, const CfgOptions& o, const GuidedModel& model)
      : inner_(std::move(inner)), o_(o), scale_(o, model.schedule), schedule_(model.schedule), parameterization_(model.parameterization) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double scale = scale_at(sigma);
    if (scale == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "cfg");
    Estimate d = e.with;
    d.x0 = guided(e.without.x0, e.with.x0, scale);
    d.x0_uncond = guided(e.without.x0_uncond, e.with.x0_uncond, scale);
    d.gradient = guided(e.without.gradient, e.with.gradient, scale);
    if (o_.rescale > 0) d.x0 = rescaled(d.x0, e.with.x0, x * parameterization_->c_skip(sigma));
    return d;
  }

 private:
  /// Returns without + scale (with - without), of the guided channels.
  Tensor guided(const Tensor& without, const Tensor& with, double scale) const {
    if (!o_.channels || !without.defined() || !with.defined() || *o_.channels >= with.size(1)) return extrapolate(without, with, scale);
    const int64_t some = *o_.channels, rest = with.size(1) - some;
    return at::cat({extrapolate(without.narrow(1, 0, some), with.narrow(1, 0, some), scale), with.narrow(1, some, rest)}, 1);
  }

  double scale_at(double sigma) const {
    const double scale = scale_(sigma);
    if (o_.schedule == Course::constant || scale == 1) return scale;
    const double lo = schedule_->t_min(), hi = schedule_->t_max(), u = (schedule_->time(sigma) - lo) / (hi - lo);
    return 1 + (scale - 1) * (o_.schedule == Course::linear ? 2 * (1 - u) : 1 + std::cos(std::numbers::pi * u));
  }

  Tensor rescaled(const Tensor& guided, const Tensor& with, const Tensor& skip) const {
    const Tensor of_guided = image_std(guided - skip), ratio = (image_std(with - skip) / of_guided).masked_fill(of_guided == 0, 1);
    const Tensor factor = ratio * o_.rescale + (1 - o_.rescale);
    return skip + (guided - skip) * factor;
  }

  std::shared_ptr<const Denoiser> inner_;
  CfgOptions o_;
  ScaleAt scale_;
  std::shared_ptr<const NoiseSchedule> schedule_;
  std::shared_ptr<const Parameterization> parameterization_;
};

class Cfg final : public Guidance {
 public:
  struct Options : CfgOptions {
    void declare(Fields& f) {
      GuidanceScale::declare(f, "1 = the conditional model, 0 = the unconditional one, more = stronger");
      f.choice("schedule", schedule,
               "schedule of the scale over the noise level; the last two grow from 1 at the noisiest, with the same mean",
               {{"constant", Course::constant}, {"linear", Course::linear}, {"cosine", Course::cosine}});
      f.field("channels", channels, "guide this many channels, the first ones; null = all", at_least(1));
      f.field("rescale", rescale, "phi: share of the guided output that is rescaled to the spread of the conditional one", within(0, 1));
      f.unused(!steers(), {"schedule", "channels", "rescale"}, "scale is 1");
      f.require(schedule == Course::constant || scale >= 1, "schedule", "needs a scale of at least 1");
    }
  };
  explicit Cfg(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = o_.steers()}; }
  void check(const Controls& controls) const override {
    if (o_.steers()) need_null(controls, "cfg");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    if (o_.channels && model.shape.channels > 0 && *o_.channels > model.shape.channels)
      throw ConfigError(fmt::format("channels: {} are to be guided, and x has {}", *o_.channels, model.shape.channels));
    return std::make_shared<CfgDenoiser>(std::move(inner), o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_cfg(Registry& r) { r.add<Guidance, Cfg>("cfg", "classifier-free guidance, with interval, schedule and rescaling"); }

}  // namespace brume::plugins
