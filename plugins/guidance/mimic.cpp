// Guidance at a high scale within the range of a low one (mcmonkeyprojects' "dynamic thresholding" for Stable Diffusion, after Saharia et
// al. 2022, "Imagen", sec. 2.3). G(s) = D_uncond + s (D_cond - D_uncond) is centred per channel, G = mean + g:
//
//   a = the spread of g(mimic_scale),   b = that of g(scale)
//   D = phi (mean + g') + (1 - phi) G(scale),   g' = clamp(g(scale), -c, c) a / c,  c = max(a, b)   if the spread is the largest value,
//                                                    g(scale) a / b                                if it is the standard deviation
//
// a is the largest |g|, b the quantile `percentile` of |g|. `center: zero` gives D = G(scale) a / b. Equal scales are cfg.
#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/quantile.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/std.h>

#include <vector>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/numerics/guidance_scale.h"

namespace brume::plugins {
namespace {

struct MimicOptions : GuidanceScale {
  MimicOptions() { scale = 15; }
  double mimic_scale = 7, percentile = 1, phi = 1;
  std::optional<ScaleCurve> mimic_curve{};
  bool deviation = false, from_zero = false, whole_image = false;
};

class MimicDenoiser final : public Denoiser {
 public:
  MimicDenoiser(std::shared_ptr<const Denoiser> inner, const MimicOptions& o, const GuidedModel& model)
      : inner_(std::move(inner)), o_(o), scale_(o, model.schedule), mimic_(mimic_of(o), model.schedule) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double scale = scale_(sigma), mimic = mimic_(sigma);
    if (!o_.steers() || (scale == 1 && mimic == 1)) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "mimic");
    Estimate d = e.with;
    d.gradient = extrapolate(e.without.gradient, e.with.gradient, scale);
    d.x0 = extrapolate(e.without.x0, e.with.x0, scale);
    if (o_.mimic_scale == o_.scale || o_.phi == 0) return d;
    const Tensor low = extrapolate(e.without.x0, e.with.x0, mimic);
    std::vector<Tensor> images;  // one by one: a reduction over rows rounds by the number of rows
    for (int64_t i = 0; i < x.size(0); ++i) images.push_back(limited(low[i].flatten(1), d.x0[i].flatten(1)));
    const Tensor inside = at::stack(images).view_as(d.x0);
    d.x0 = o_.phi == 1 ? inside : inside * o_.phi + d.x0 * (1 - o_.phi);
    return d;
  }

 private:
  static GuidanceScale mimic_of(const MimicOptions& o) {
    GuidanceScale mimic;
    mimic.scale = o.mimic_scale, mimic.curve = o.mimic_curve;
    mimic.sigma_lo = o.sigma_lo, mimic.sigma_hi = o.sigma_hi;
    return mimic;
  }
  /// Returns `high` within the range of `low`; both [C, pixels].
  Tensor limited(const Tensor& low, const Tensor& high) const {
    const Tensor mean = high.mean(at::IntArrayRef({1}), true), centred = high - mean,
                 low_centred = low - low.mean(at::IntArrayRef({1}), true);
    const auto together = [&](const Tensor& t) { return o_.whole_image ? t.reshape({1, -1}) : t; };
    const auto deviation = [&](const Tensor& t) { return together(t).std(at::OptionalIntArrayRef({1}), true, true); };
    const Tensor a = o_.deviation ? deviation(low_centred) : together(low_centred).abs().amax(at::IntArrayRef({1}), true);
    const Tensor b = o_.deviation ? deviation(centred) : together(centred).abs().quantile(o_.percentile, 1, true);
    if (o_.from_zero || o_.deviation) {
      const Tensor ratio = (a / b).masked_fill(b == 0, 1);
      return o_.from_zero ? high * ratio : centred * ratio + mean;
    }
    const Tensor c = at::maximum(a, b);
    return at::maximum(at::minimum(centred, c), -c) * (a / c).masked_fill(c == 0, 1) + mean;
  }

  std::shared_ptr<const Denoiser> inner_;
  MimicOptions o_;
  ScaleAt scale_, mimic_;
};

class Mimic final : public Guidance {
 public:
  struct Options : MimicOptions {
    void declare(Fields& f) {
      GuidanceScale::declare(f, "1 = the conditional model, more = stronger");
      f.field("mimic_scale", mimic_scale, "scale whose range of values is kept", at_least(0));
      f.section("mimic_curve", mimic_curve, "course of the mimic scale over the steps of a run; absent = constant");
      f.choice("spread", deviation, "what of the range is kept: the largest value, or the standard deviation",
               {{"largest", false}, {"std", true}});
      f.field("percentile", percentile, "quantile of the values that stands for the largest", within(0, 1));
      f.choice("center", from_zero, "values are scaled from their mean per channel, or from zero", {{"mean", false}, {"zero", true}});
      f.choice("over", whole_image, "the range of each channel, or of all channels of an image", {{"channel", false}, {"image", true}});
      f.field("phi", phi, "share of the limited estimate; the rest is cfg", within(0, 1));
      f.unused(!steers(), {"mimic_scale", "spread", "percentile", "center", "over", "phi"}, "scale is 1");
      f.unused(deviation, "percentile", "the spread is the standard deviation");
    }
  };
  explicit Mimic(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = o_.steers()}; }
  void check(const Controls& controls) const override {
    if (o_.steers()) need_null(controls, "mimic");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<MimicDenoiser>(std::move(inner), o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_mimic(Registry& r) {
  r.add<Guidance, Mimic>("mimic", "cfg at a high scale within the range of a low one (dynamic thresholding of latents)");
}

}  // namespace brume::plugins
