// The hybrid objective (Improved DDPM, Nichol & Dhariwal 2021, eq. 16): the mean learns from the simplified objective, the variance
// from the variational bound, whose gradient to the mean is stopped.
//
//   L = L_simple + lambda L_vlb(stop-gradient(D), variance)
//
// With L_vlb the sum of its terms this is guided-diffusion's RESCALED_MSE at lambda 0.001; its MSE is `lambda: 1, terms: mean`.
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/numerics/bound.h"

namespace brume::plugins {
namespace {

class Hybrid final : public Objective {
 public:
  struct Options {
    TargetError error;
    BoundError bound;
    double lambda = 0.001;
    std::shared_ptr<const TimeSampler> time;
    void declare(Fields& f) {
      error.declare_target(f);
      error.declare(f);
      f.field("lambda", lambda, "weight of the variational bound", at_least(0));
      bound.declare_chain(f);
      f.field("time", time, "distribution of the noise levels", "uniform");
    }
  };
  explicit Hybrid(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const BoundError::Drawn drawn = o_.bound.draw(*o_.time, model.schedule(), x0.size(0), training.memory, random);
    const NoisyBatch b = add_noise(x0, drawn.sigmas, random, o_.error.noise);
    const TrainableModel::Prediction y = model.predict(b.x, b.sigmas, condition);
    const Tensor losses =
        o_.error.per_image(b, y.f, model.parameterization()) + o_.bound.per_image(b, drawn, y, model, BoundError::Mean::fixed) * o_.lambda;
    return mean_loss(*o_.time, model.schedule(), drawn.time, losses, training.memory);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return o_.time->memory(schedule); }
  void check(const Requirements& r) const override {
    if (r.variance == LearnedVariance::none)
      throw ConfigError(
          "hybrid trains a variance, and model.variance is none; set it to learned_range (or learned), or take the objective simple");
    o_.bound.check(r.schedule);
  }

 private:
  Options o_;
};

}  // namespace

void register_objective_hybrid(Registry& r) {
  r.add<Objective, Hybrid>("hybrid", "the simplified objective for the mean, the variational bound for the variance (Improved DDPM)");
}

}  // namespace brume::plugins
