// FreSca (Huang et al. 2025, "FreSca: scaling in frequency space enhances diffusion models", eq. 6): the difference that guides is scaled
// by frequency.
//
//   D = D_uncond + scale F(D_cond - D_uncond),   F: times `low` within a window around frequency 0, times `high` outside it
//
// The window is [c - f, c + f) of the shifted spectrum, c its centre and f = min(cutoff, c), in height and in width.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <numbers>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

struct FrescaOptions {
  double scale = 5, low = 1, high = 1.25;
  int64_t cutoff = 20;
};

class FrescaDenoiser final : public Denoiser {
 public:
  FrescaDenoiser(std::shared_ptr<const Denoiser> inner, const FrescaOptions& o) : inner_(std::move(inner)), o_(o) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (o_.scale == 1 && o_.low == 1 && o_.high == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "fresca");
    Estimate d = e.with;
    d.gradient = extrapolate(e.without.gradient, e.with.gradient, o_.scale);
    if (o_.low == 1 && o_.high == 1)
      d.x0 = extrapolate(e.without.x0, e.with.x0, o_.scale);
    else
      d.x0 = e.without.x0 + filtered(e.with.x0 - e.without.x0) * o_.scale;
    return d;
  }

 private:
  struct Window {
    Tensor cosine, sine;  ///< real and imaginary part of the matrix that keeps the frequencies of the window
  };
  Window window(int64_t n, const Tensor& like) const {
    const int64_t reach = std::min(o_.cutoff, n / 2);
    const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);
    const Tensor place = at::arange(n, f64), gap = place.unsqueeze(1) - place.unsqueeze(0), k = at::arange(-reach, reach, f64);
    const Tensor angle = gap.unsqueeze(2) * k * (2 * std::numbers::pi / double(n));
    const auto sum = [&](const Tensor& t) { return (t.sum(at::IntArrayRef({2})) / double(n)).to(like.options()); };
    return {sum(angle.cos()), sum(angle.sin())};
  }
  Tensor filtered(const Tensor& t) const {
    const Window h = window(t.size(2), t), w = window(t.size(3), t);
    const auto both = [&](const Tensor& a, const Tensor& b) { return at::matmul(at::matmul(a, t), b.transpose(0, 1)); };
    const Tensor inside = both(h.cosine, w.cosine) - both(h.sine, w.sine);
    return t * o_.high + inside * (o_.low - o_.high);
  }
  std::shared_ptr<const Denoiser> inner_;
  FrescaOptions o_;
};

class Fresca final : public Guidance {
 public:
  struct Options : FrescaOptions {
    void declare(Fields& f) {
      f.field("scale", scale, "scale of cfg", at_least(0));
      f.field("low", low, "factor of the low frequencies of the difference", at_least(0));
      f.field("high", high, "factor of the high ones", at_least(0));
      f.field("cutoff", cutoff, "frequencies below this are low", at_least(1));
      f.unused(low == high, "cutoff", "low and high are equal");
      f.unused(scale == 0, {"low", "high", "cutoff"}, "scale is 0");
    }
  };
  explicit Fresca(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = true}; }
  void check(const Controls& controls) const override { need_null(controls, "fresca"); }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<FrescaDenoiser>(std::move(inner), o_);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_fresca(Registry& r) { r.add<Guidance, Fresca>("fresca", "cfg whose difference is scaled by frequency"); }

}  // namespace brume::plugins
