// The guidance scale as a condition, for networks that are distilled from guided ones (Meng et al. 2023, "On Distillation of Guided
// Diffusion Models"; FLUX.1-dev): they give the guided estimate in one call. For composite; the null condition has the same scale.
#include <ATen/ops/full.h>

#include "brume/config/registry.h"
#include "brume/core/conditioner.h"

namespace brume::plugins {
namespace {

struct GuidanceScaleOptions {
  double scale = 3.5;
  void declare(Fields& f) { f.field("scale", scale, "the scale that the network imitates", at_least(0)); }
};

class Encoder final : public ConditionEncoder {
 public:
  explicit Encoder(const GuidanceScaleOptions& o) : o_(o) {}
  Condition encode(const ConditionRequest& request) const override {
    Condition condition, null;
    condition.guidance =
        at::full({int64_t(request.annotations.size())}, o_.scale, at::TensorOptions().dtype(at::kFloat)).to(request.device);
    null.guidance = condition.guidance;
    condition.null = std::make_shared<Condition>(std::move(null));
    return condition;
  }

 private:
  GuidanceScaleOptions o_;
};

class GuidanceScale final : public Conditioner {
 public:
  using Options = GuidanceScaleOptions;
  explicit GuidanceScale(const Options& o) : o_(o) {}
  ConditionerTraits traits() const override { return {.guidance = true, .has_null = true}; }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin&) const override { return std::make_shared<Encoder>(o_); }

 private:
  Options o_;
};

}  // namespace

void register_conditioner_guidance_scale(Registry& r) {
  r.add<Conditioner, GuidanceScale>("guidance_scale", "the scale that a guidance-distilled network imitates (FLUX); for composite");
}

}  // namespace brume::plugins
