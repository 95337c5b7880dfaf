// Classifier-free guidance (Ho & Salimans 2022): the same whether written on x0, the noise or v.
//
//   D = D_uncond + scale (D_cond - D_uncond)
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include "config/registry.h"
#include "core/guidance.h"

namespace brume::plugins {
namespace {

class CfgDenoiser final : public Denoiser {
 public:
  CfgDenoiser(std::shared_ptr<const Denoiser> inner, double scale) : inner_(std::move(inner)), scale_(scale) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (scale_ == 1) return inner_->denoise(x, sigma, condition);
    if (!condition.null)
      throw ConfigError("cfg needs an unconditional estimate, and this model was trained without one (conditioner dropout: 0)");
    const Estimate both = inner_->denoise(at::cat({x, x}), sigma, concat(*condition.null, condition));  // one call of twice the batch
    const auto half = [&](const Tensor& t, int64_t k) { return t.defined() ? t.narrow(0, k * x.size(0), x.size(0)) : t; };
    Estimate d;
    d.x0 = half(both.x0, 0) + (half(both.x0, 1) - half(both.x0, 0)) * scale_;
    d.variance = half(both.variance, 1);
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  double scale_;
};

class Cfg final : public Guidance {
 public:
  struct Options {
    double scale = 1;
    void declare(Fields& f) {
      f.field("scale", scale, "1 = the conditional model, 0 = the unconditional one, more = stronger", at_least(0));
    }
  };
  explicit Cfg(const Options& o) : o_(o) {}
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<CfgDenoiser>(std::move(inner), o_.scale);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_cfg(Registry& r) { r.add<Guidance, Cfg>("cfg", "classifier-free guidance"); }

}  // namespace brume::plugins
