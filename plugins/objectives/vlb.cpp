// The variational bound (Ho et al. 2020, eq. 5) in bits per dimension, one term per image: the KL of the model's ancestral step from the
// true one, and at the last step the likelihood of the 8-bit image.
//
//   L_(t-1) = KL(q(x_(t-1) | x_t, x0) || p(x_(t-1) | x_t)),   L_0 = -log p(x0 | x_1)
//
// The variance of the steps is the model's if it learns one (Nichol & Dhariwal 2021, sec. 3.1), else a bound of it. `terms: sum` is
// guided-diffusion's RESCALED_KL, `terms: mean` its KL.
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/numerics/bound.h"

namespace brume::plugins {
namespace {

class Vlb final : public Objective {
 public:
  struct Options {
    BoundError bound;
    std::shared_ptr<const TimeSampler> time;
    void declare(Fields& f) {
      bound.declare(f);
      f.field("time", time, "distribution of the noise levels", "uniform");
    }
  };
  explicit Vlb(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const BoundError::Drawn drawn = o_.bound.draw(*o_.time, model.schedule(), x0.size(0), training.memory, random);
    const NoisyBatch b = add_noise(x0, drawn.sigmas, random);
    const Tensor losses = o_.bound.per_image(b, drawn, model.predict(b.x, b.sigmas, condition), model, BoundError::Mean::learns);
    return mean_loss(*o_.time, model.schedule(), drawn.time, losses, training.memory);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return o_.time->memory(schedule); }
  void check(const Requirements& r) const override { o_.bound.check(r.schedule); }

 private:
  Options o_;
};

}  // namespace

void register_objective_vlb(Registry& r) { r.add<Objective, Vlb>("vlb", "the variational bound, in bits per dimension"); }

}  // namespace brume::plugins
