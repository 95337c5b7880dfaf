// Autoguidance (Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself"): away from a weaker model of the same data
// and condition, one that is smaller or was trained for less.
//
//   D = D_weak + scale (D - D_weak)
//
// A weak model without classes is asked without a condition: cfg with another network for the unconditional estimate.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

class AutoguidanceDenoiser final : public Denoiser {
 public:
  AutoguidanceDenoiser(std::shared_ptr<const Denoiser> inner, OtherModel weak, double scale)
      : inner_(std::move(inner)), weak_(std::move(weak)), scale_(scale) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    Estimate d = inner_->denoise(x, sigma, condition);
    if (scale_ == 1) return d;
    const Tensor weak = weak_.denoiser->denoise(x, sigma, weak_.classes > 0 ? condition : Condition{}).x0;
    d.x0 = extrapolate(weak, d.x0, scale_);
    if (d.x0_uncond.defined()) d.x0_uncond = extrapolate(weak, d.x0_uncond, scale_);
    if (d.gradient.defined()) d.gradient = d.gradient * scale_;
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  OtherModel weak_;
  double scale_;
};

class Autoguidance final : public Guidance {
 public:
  struct Options {
    std::string model;
    double scale = 2;
    void declare(Fields& f) {
      f.field("model", model,
              "model.safetensors of the weaker model; looked for in the folder of the file that names it, then in the current one");
      f.field("scale", scale, "1 = the model alone, more = further away from the weaker one", at_least(0));
      f.unused(scale == 1, "model", "scale is 1");
    }
  };
  explicit Autoguidance(const Options& o) : o_(o) {}

  void check(const Controls&) const override {
    if (o_.model.empty()) throw ConfigError("model: missing; the model.safetensors of a weaker model");
  }

  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    OtherModel weak = model.models.model(o_.model);
    if (!(weak.shape == model.shape))
      throw ConfigError(fmt::format("{} denoises {} images, and the model {}", o_.model, weak.shape.text(), model.shape.text()));
    if (weak.classes > 0 && weak.classes != model.controls.classes)
      throw ConfigError(fmt::format("{} has {}, and the model {}", o_.model, counted(weak.classes, "class"), model.controls.classes));
    if (weak.classes > 0 && model.controls.has_null && !weak.has_null)
      throw ConfigError(fmt::format("{} was trained without an unconditional estimate, and the model with one", o_.model));
    return std::make_shared<AutoguidanceDenoiser>(std::move(inner), std::move(weak), o_.scale);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_autoguidance(Registry& r) {
  r.add<Guidance, Autoguidance>("autoguidance", "away from a weaker model of the same data");
}

}  // namespace brume::plugins
