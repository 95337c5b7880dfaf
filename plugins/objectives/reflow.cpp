// Reflow (Liu et al. 2023, "Flow Straight and Fast", sec. 2.2): flow matching between noise and the image that the ODE of a trained model
// makes of it; its paths are straighter than the teacher's, and few steps of Euler follow them.
//
//   n ~ N(0, 1),   x1 = ODE of the teacher from n,   z_t = (1 - t) x1 + t n,   loss = w |v(z_t, t) - (n - x1)|^2
//
// The pairs are made in each step of the training, under the conditions of its images, by `steps` of Heun's method (Karras et al. 2022,
// alg. 1) over the spacing. Sample with euler.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/noising.h"
#include "brume/numerics/teacher.h"

namespace brume::plugins {
namespace {

class Reflow final : public Objective {
 public:
  struct Options {
    GuidedTeacher teacher;
    int64_t steps = 8;
    std::shared_ptr<const Spacing> spacing;
    std::shared_ptr<const TimeSampler> time;
    TargetError error{.target = Target::flow};
    void declare(Fields& f) {
      teacher.declare(f);
      f.field("steps", steps, "of the teacher's ODE", within(1, 100000));
      f.field("spacing", spacing, "the noise levels of the teacher's steps", "trailing");
      f.field("time", time, "distribution of the noise levels", "uniform");
      error.declare_target(f);
      error.declare(f);
    }
  };
  explicit Reflow(const Options& o) : o_(o) {}
  bool denoises() const override { return false; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const std::shared_ptr<const Denoiser> teacher = o_.teacher.open(training, x0);
    const TimeSampler::Draw drawn = draw_times(*o_.time, model.schedule(), x0.size(0), training.memory, random);
    NoisyBatch b = add_noise(x0, drawn.sigmas, random);
    b.x0 = image_of(*teacher, b.noise, o_.spacing->sigmas(model.schedule(), o_.steps), condition);
    b.x = b.x0 + b.noise * each_image(b.sigmas, b.x0, [](double s) { return s; });
    const Tensor losses = o_.error.per_image(b, model.network(b.x, b.sigmas, condition), model.parameterization());
    return mean_loss(*o_.time, model.schedule(), drawn, losses, training.memory);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return o_.time->memory(schedule); }
  void check(const Requirements&) const override { o_.teacher.check(); }

 private:
  /// Returns the end of the path that starts at sigma noise: at a sigma so large that an image is nothing next to it.
  static Tensor image_of(const Denoiser& teacher, const Tensor& noise, const std::vector<double>& sigmas, const Condition& condition) {
    const at::NoGradGuard no_grad;
    Tensor x = noise * sigmas.front();
    for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
      const double from = sigmas[i], to = sigmas[i + 1];
      const Tensor x0 = teacher.denoise(x, from, condition).x0;
      Tensor next = x0 + (x - x0) * (to / from);
      if (to == 0) return next;
      const Tensor slope = (x - x0) / from + (next - teacher.denoise(next, to, condition).x0) / to;
      x = from > 1e3 ? next : x + slope * ((to - from) / 2);  // a straight step from where x is all noise
    }
    return x;
  }
  Options o_;
};

}  // namespace

void register_objective_reflow(Registry& r) {
  r.add<Objective, Reflow>("reflow", "flow matching along the paths of a trained model, which become straight");
}

}  // namespace brume::plugins
