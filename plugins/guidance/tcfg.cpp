// Tangential damping classifier-free guidance (Kwon et al. 2025, "TCFG", eq. 9), on the noise x - D.
//
//   u <- v <v, u>,  v: the first right singular vector of [x - D_cond; x - D_uncond], per image;   D = x - u - scale ((x - D_cond) - u)
#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/numerics/guidance_scale.h"
#include "brume/numerics/per_image.h"

namespace brume::plugins {
namespace {

class TcfgDenoiser final : public Denoiser {
 public:
  TcfgDenoiser(std::shared_ptr<const Denoiser> inner, ScaleAt scale) : inner_(std::move(inner)), scale_(std::move(scale)) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double scale = scale_(sigma);
    if (scale == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "tcfg");
    Estimate d = e.with;
    d.gradient = extrapolate(e.without.gradient, e.with.gradient, scale);
    d.x0 = extrapolate(x - projected(x - e.with.x0, x - e.without.x0), e.with.x0, scale);
    return d;
  }

 private:
  /// Returns u on the larger principal axis of c and u, by the eigenvector (a, b) of their 2 by 2 Gram matrix.
  static Tensor projected(const Tensor& c, const Tensor& u) {
    const Tensor cc = image_dot(c, c), uu = image_dot(u, u), cu = image_dot(c, u), half = (cc - uu) * 0.5;
    const Tensor root = (half * half + cu * cu).sqrt();
    const Tensor a = at::where(half >= 0, half + root, cu), b = at::where(half >= 0, cu, root - half);
    return image_parallel(u, at::where((a == 0).logical_and(b == 0), u, c * a + u * b));
  }
  std::shared_ptr<const Denoiser> inner_;
  ScaleAt scale_;
};

class Tcfg final : public Guidance {
 public:
  struct Options : GuidanceScale {
    Options() { scale = 5; }
    void declare(Fields& f) { GuidanceScale::declare(f, "1 = the conditional model, more = stronger"); }
  };
  explicit Tcfg(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = o_.steers()}; }
  void check(const Controls& controls) const override {
    if (o_.steers()) need_null(controls, "tcfg");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<TcfgDenoiser>(std::move(inner), ScaleAt(o_, model.schedule));
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_tcfg(Registry& r) { r.add<Guidance, Tcfg>("tcfg", "cfg with the unconditional noise projected (TCFG)"); }

}  // namespace brume::plugins
