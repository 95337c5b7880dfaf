// The objective of EDM2 (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", sec. B.5 and eq. 21): the
// error of EDM, over a variance that the network learns for each noise level, so that all levels count alike whatever their losses are.
//
//   loss = mean ((sigma^2 + sd^2) / (sigma sd)^2 (D - x0)^2 / exp(u) + u),   u = Network::log_variance
#include <fmt/format.h>

#include "brume/config/foreign.h"
#include "brume/config/registry.h"
#include "brume/core/warnings.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

class Edm2 final : public Objective {
 public:
  struct Options {
    TargetError error{.target = Target::image};
    std::shared_ptr<const TimeSampler> time;
    void declare(Fields& f) {
      error.declare(f, "edm");
      f.field("time", time, "distribution of the noise levels; EDM2's is {type: log_normal, mean: -0.4, std: 1}", "log_normal");
    }
  };
  explicit Edm2(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const TimeSampler& time = *o_.time;
    const TimeSampler::Draw drawn = draw_times(time, model.schedule(), x0.size(0), training.memory, random);
    const NoisyBatch b = add_noise(x0, drawn.sigmas, random);
    const TrainableModel::Prediction p = model.predict(b.x, b.sigmas, condition);
    Tensor losses = o_.error.per_image(b, p.f, model.parameterization());
    if (p.log_variance.defined())
      losses = losses / p.log_variance.exp() + p.log_variance;
    else if (training.step == 0)
      warn("the objective edm2 learns the variance of the loss, and the network has none to learn: this is the loss of edm");
    return mean_loss(time, model.schedule(), drawn, losses, training.memory);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return o_.time->memory(schedule); }

 private:
  Options o_;
};

}  // namespace

void register_objective_edm2(Registry& r) {
  r.add<Objective, Edm2>("edm2", "edm's error over a variance that the network learns for each noise level");
}

}  // namespace brume::plugins
