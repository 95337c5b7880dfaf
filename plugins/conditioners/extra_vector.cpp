// Vectors that few-step models take in addition to their condition; a network embeds them as it does a pooled vector of text.
//
//   latent:    z ~ N(0, 1) of a generator (Xiao et al. 2022, sec. 4). The objective and the sampler `ddgan` draw it; others get z = 0
//   interval:  the length h = t - r of the step from t to r (Geng et al. 2025, "Mean Flows"; Frans et al. 2025, "One Step Diffusion via
//              Shortcut Models"), as cosines and sines. Their objectives and samplers say h; others get h = 0, the instantaneous velocity
#include <ATen/ops/zeros.h>

#include "brume/config/registry.h"
#include "brume/core/conditioner.h"
#include "brume/numerics/extra_vector.h"

namespace brume::plugins {
namespace {

/// Gives the vector of zeros, or of a step of length 0.
class ConstantVector final : public ConditionEncoder {
 public:
  ConstantVector(int64_t width, bool interval) : width_(width), interval_(interval) {}
  Condition encode(const ConditionRequest& request) const override {
    const int64_t images = int64_t(request.annotations.size());
    const auto options = at::TensorOptions().dtype(at::kFloat);
    Condition condition;
    condition.vector =
        (interval_ ? interval_features(at::zeros({images}, options), width_) : at::zeros({images, width_}, options)).to(request.device);
    condition.null = std::make_shared<Condition>(condition);
    return condition;
  }

 private:
  int64_t width_;
  bool interval_;
};

template <bool interval>
class ExtraVector final : public Conditioner {
 public:
  struct Options {
    int64_t width = 64;
    void declare(Fields& f) {
      f.field("width", width, interval ? "cosines and sines" : "dimensions of z", within(2, 4096));
      if (interval) f.require(width % 2 == 0, "width", "must be even");
    }
  };
  explicit ExtraVector(const Options& o) : o_(o) {}
  ConditionerTraits traits() const override { return {.vector_width = o_.width, .has_null = true}; }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin&) const override {
    return std::make_shared<ConstantVector>(o_.width, interval);
  }

 private:
  Options o_;
};

}  // namespace

void register_conditioner_extra_vector(Registry& r) {
  r.add<Conditioner, ExtraVector<false>>("latent", "the random vector of a generator (ddgan), alone or in composite");
  r.add<Conditioner, ExtraVector<true>>("interval", "the length of a step (mean_flow, shortcut), alone or in composite");
}

}  // namespace brume::plugins
