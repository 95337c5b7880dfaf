// Adaptive projected guidance (Sadat et al. 2024, "Eliminating oversaturation and artifacts of high guidance scales", alg. 1), on x0.
//
//   d = D_cond - D_uncond + momentum d_last,   d <- d min(1, norm / |d|),   d <- d_orthogonal + eta d_parallel   to D_cond
//   D = D_uncond + scale d      or, `from: condition`,   D = D_cond + (scale - 1) d
//
// With eta 1, no momentum and no norm it is cfg. Until `start_step` it is cfg with `cfg_scale`.
#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>

#include <optional>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/core/run_memory.h"
#include "brume/numerics/guidance_scale.h"
#include "brume/numerics/per_image.h"

namespace brume::plugins {
namespace {

struct ApgOptions : GuidanceScale {
  ApgOptions() { scale = 7.5; }
  double eta = 0, momentum = 0, cfg_scale = 1;
  std::optional<double> norm{};
  int64_t start_step = 0;
  bool from_condition = false;
};

class ApgDenoiser final : public Denoiser {
 public:
  ApgDenoiser(std::shared_ptr<const Denoiser> inner, const ApgOptions& o, const GuidedModel& model)
      : inner_(std::move(inner)), o_(o), scale_(o, model.schedule) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const double scale = scale_(sigma);
    if (scale == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "apg");
    Memory outside, *memory = RunMemory::current() ? &RunMemory::current()->of<Memory>(this) : &outside;
    const Tensor difference = e.with.x0 - e.without.x0;
    Tensor d = difference;
    if (o_.momentum != 0) {
      if (memory->last.defined() && memory->last.sizes() == d.sizes()) d = d + memory->last * o_.momentum;
      memory->last = d;
    }
    Estimate guided = e.with;
    guided.gradient = extrapolate(e.without.gradient, e.with.gradient, scale);
    if (memory->steps.at(sigma) < o_.start_step)
      guided.x0 = extrapolate(e.without.x0, e.with.x0, o_.cfg_scale);
    else if (o_.eta == 1 && o_.momentum == 0 && !o_.norm)
      guided.x0 = extrapolate(e.without.x0, e.with.x0, scale);
    else
      guided.x0 = o_.from_condition ? e.with.x0 + projected(d, e.with.x0) * (scale - 1) : e.without.x0 + projected(d, e.with.x0) * scale;
    return guided;
  }

 private:
  struct Memory {
    Tensor last;
    StepCounter steps;
  };
  Tensor projected(Tensor d, const Tensor& onto) const {
    if (o_.norm) {
      const Tensor size = image_norm(d);
      d = d * (*o_.norm / size).masked_fill(size == 0, 1).clamp_max(1);
    }
    const Tensor parallel = image_parallel(d, onto);
    return d - parallel + parallel * o_.eta;
  }
  std::shared_ptr<const Denoiser> inner_;
  ApgOptions o_;
  ScaleAt scale_;
};

class Apg final : public Guidance {
 public:
  struct Options : ApgOptions {
    void declare(Fields& f) {
      GuidanceScale::declare(f, "1 = the conditional model, more = stronger");
      f.field("eta", eta, "share of the part that is parallel to the estimate", within(-10, 10));
      f.field("norm", norm, "largest norm of the difference over an image; null = any", more_than(0));
      f.field("momentum", momentum, "share of the last difference that is added; negative = away from it (the paper's)", within(-1, 1));
      f.choice("from", from_condition, "the estimate that the difference is added to: scale times, or scale - 1 times",
               {{"unconditional", false}, {"condition", true}});
      f.field("start_step", start_step, "steps of cfg before", at_least(0));
      f.field("cfg_scale", cfg_scale, "scale of cfg in those steps", at_least(0));
      f.unused(!steers(), {"eta", "norm", "momentum", "from", "start_step", "cfg_scale"}, "scale is 1");
      f.unused(start_step == 0, "cfg_scale", "start_step is 0");
      f.unused(eta == 1 && momentum == 0 && !norm, "from", "eta, norm and momentum make it cfg");
    }
  };
  explicit Apg(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = o_.steers()}; }
  void check(const Controls& controls) const override {
    if (o_.steers()) need_null(controls, "apg");
  }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<ApgDenoiser>(std::move(inner), o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_apg(Registry& r) { r.add<Guidance, Apg>("apg", "adaptive projected guidance, with momentum and norm"); }

}  // namespace brume::plugins
