// Condition-annealed diffusion sampler (Sadat et al. 2024, "CADS: unleashing the diversity of diffusion models", alg. 2): noise in the
// condition while x is noisy. The condition is the context of a prompt, and its pooled vector.
//
//   y' = sqrt(g) y + noise_scale sqrt(1 - g) n,   g = 1 for t <= tau1, 0 for t >= tau2, linear between;   t: time, 1 = the noisiest
//   y <- psi y'' + (1 - psi) y',   y'': y' with the mean and spread of y, per image
#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/core/run_memory.h"
#include "brume/numerics/per_image.h"

namespace brume::plugins {
namespace {

struct CadsOptions {
  double noise_scale = 0.25, tau1 = 0.6, tau2 = 0.9, psi = 1;
  bool rescale = true;
};

class CadsDenoiser final : public Denoiser {
 public:
  CadsDenoiser(std::shared_ptr<const Denoiser> inner, std::shared_ptr<const NoiseSchedule> schedule, const CadsOptions& o)
      : inner_(std::move(inner)), schedule_(std::move(schedule)), o_(o) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double lo = schedule_->t_min(), hi = schedule_->t_max(), t = (schedule_->time(sigma) - lo) / (hi - lo);
    const double gamma = t <= o_.tau1 ? 1 : t >= o_.tau2 ? 0 : (o_.tau2 - t) / (o_.tau2 - o_.tau1);
    RunMemory* run = RunMemory::current();
    if (!run || gamma == 1 || o_.noise_scale == 0) return inner_->denoise(x, sigma, condition);
    Condition noisy = condition;
    for (Tensor* part : {&noisy.context, &noisy.vector})
      if (part->defined()) *part = annealed(*part, gamma, run->noise(), sigma);
    return inner_->denoise(x, sigma, noisy);
  }

 private:
  Tensor annealed(const Tensor& y, double gamma, Noise& noise, double sigma) const {
    const Tensor mixed = y * std::sqrt(gamma) + noise.draw(y, sigma, sigma) * (o_.noise_scale * std::sqrt(1 - gamma));
    if (!o_.rescale || o_.psi == 0) return mixed;
    const auto mean = [](const Tensor& v) { return per_image(v, [&](int64_t i) { return v[i].mean(); }); };
    const Tensor spread = image_std(mixed);
    const Tensor alike = (mixed - mean(mixed)) * (image_std(y) / spread).masked_fill(spread == 0, 1) + mean(y);
    return alike * o_.psi + mixed * (1 - o_.psi);
  }
  std::shared_ptr<const Denoiser> inner_;
  std::shared_ptr<const NoiseSchedule> schedule_;
  CadsOptions o_;
};

class Cads final : public Guidance {
 public:
  struct Options : CadsOptions {
    void declare(Fields& f) {
      f.field("noise_scale", noise_scale, "standard deviation of the noise in the condition; 0 = none", at_least(0));
      f.field("tau1", tau1, "time up to which the condition is clean, 0 = the end of a run", within(0, 1));
      f.field("tau2", tau2, "time from which on it is noise alone, 1 = the start", within(0, 1));
      f.field("rescale", rescale, "give the noisy condition the mean and spread of the clean one");
      f.field("psi", psi, "share of that", within(0, 1));
      f.unused(noise_scale == 0, {"tau1", "tau2", "rescale", "psi"}, "noise_scale is 0");
      f.unused(!rescale, "psi", "rescale is false");
      f.require(tau1 < tau2, "tau1", "must be less than tau2");
    }
  };
  explicit Cads(const Options& o) : o_(o) {}
  void check(const Controls& controls) const override {
    if (!controls.captions && o_.noise_scale > 0)
      throw ConfigError("cads adds noise to the encoding of a prompt, and this model takes no prompts");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<CadsDenoiser>(std::move(inner), model.schedule, o_);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_cads(Registry& r) { r.add<Guidance, Cads>("cads", "noise in the condition of a prompt (CADS)"); }

}  // namespace brume::plugins
