// Distribution matching distillation (Yin et al. 2024, "One-step Diffusion with Distribution Matching Distillation", and "Improved
// Distribution Matching Distillation", DMD2, sec. 4): the images of a few-step generator are to have the teacher's scores.
//
//   x = D_model(x0 + sigma_k n, sigma_k), sigma_k a level of the spacing;   x_t = x + sigma n
//   grad = (D_fake(x_t) - D_teacher(x_t)) / mean |x - D_teacher(x_t)|,   loss = |x - stop-gradient(x - grad)|^2 / 2
//   fake score: (1 / sigma^2 + 1 / sd^2) |D_fake(x_t) - x|^2, in every step; the model learns once in `model_every` (two time scales)
//
// The fake score is a network like the model's and begins with its weights: those of the teacher, by `train.from`. It learns at a sigma per
// image; the teacher is called once per sigma, so the scores of a batch share a few. Sample with `consistency` over the same spacing.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "brume/config/registry.h"
#include "brume/core/formed_weights.h"
#include "brume/core/spacing.h"
#include "brume/numerics/companion_network.h"
#include "brume/numerics/distillation.h"
#include "brume/numerics/noising.h"
#include "brume/numerics/teacher.h"

namespace brume::plugins {
namespace {

struct DmdOptions {
  GuidedTeacher teacher;
  int64_t steps = 1, model_every = 5, levels = 8;
  double sigma_data = 0.5;
  std::shared_ptr<const Spacing> spacing;
  std::shared_ptr<const TimeSampler> time;
  Deferred<Optimizer> optimizer;
  void declare(Fields& f) {
    teacher.declare(f);
    f.field("steps", steps, "of the model; sample with as many", within(1, 1000));
    f.field("spacing", spacing, "the noise levels of the steps; sample with the same", "trailing");
    f.field("model_every", model_every, "updates of the fake score for one of the model", at_least(1));
    f.field("sigma_data", sigma_data, "standard deviation of the images, in the weight of the fake score", more_than(0));
    f.field("time", time, "distribution of the noise levels of the scores", "uniform");
    f.field("levels", levels, "noise levels of the teacher's estimates of a batch: calls of its network per step", at_least(1));
    f.field("optimizer", optimizer, "of the fake score", "adam");
  }
};

class OpenDmd final : public OpenObjective {
 public:
  OpenDmd(const DmdOptions& o, const JointObjective::Context& c)
      : o_(o), dtype_(c.dtype), first_(c.weights), fake_(c.model.make(c.network)) {
    move_to(fake_->weights(), c.device);
  }

  std::vector<Companion> companions() const override { return {{"fake_score", fake_->weights(), o_.optimizer}}; }
  int64_t model_every() const override { return o_.model_every; }
  std::vector<std::pair<std::string, double>> figures() const override { return figures_; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    if (training.step == 0) begin();
    const std::shared_ptr<const Denoiser> teacher = o_.teacher.open(training, x0);
    const CompanionModel fake(model, fake_, dtype_);
    const bool due = training.step % o_.model_every == 0;
    const Tensor image = [&] {
      const at::AutoGradMode learns(due);
      return few_step_images(model, *o_.spacing, o_.steps, x0, condition, random);
    }();
    const NoisyBatch seen =
        add_noise(image.detach(), shared_levels(*o_.time, model.schedule(), o_.levels, image.size(0), training.memory, random), random);
    Tensor learned = fake_loss(fake, image.detach(), condition, training, random);
    figures_ = {{"fake_score", learned.item<double>()}};
    if (!due) return learned;
    const Tensor gradient = [&] {
      const at::NoGradGuard no_grad;
      const Tensor real = estimates(*teacher, seen.x, seen.sigmas, condition);
      return distribution_gradient(seen.x0, real, denoised(fake, seen.x, seen.sigmas, condition));
    }();
    return (image - (seen.x0 - gradient)).square().mean() / 2 + learned;
  }

 private:
  /// Copies the model's weights, which a file may have been read into since it was made.
  void begin() const {
    const at::NoGradGuard no_grad;
    const std::vector<Weight> into = fake_->weights();
    for (size_t i = 0; i < into.size(); ++i) Tensor(into[i].tensor).copy_(FormedWeights::of(first_[i].tensor));
  }

  /// Returns the weighted error of the fake score on images of the model, at a noise level per image.
  Tensor fake_loss(const CompanionModel& fake, const Tensor& image, const Condition& condition, Training& training,
                   at::Generator& random) const {
    const NoisyBatch known = add_noise(image, draw_times(*o_.time, fake.schedule(), image.size(0), training.memory, random).sigmas, random);
    const double of_data = 1 / (o_.sigma_data * o_.sigma_data);
    const Tensor error = denoised(fake, known.x, known.sigmas, condition) - known.x0;
    return (error.square() * each_image(known.sigmas, error, [&](double s) { return 1 / (s * s) + of_data; })).mean();
  }

  DmdOptions o_;
  at::ScalarType dtype_;
  std::vector<Weight> first_;
  std::shared_ptr<Network> fake_;
  mutable std::vector<std::pair<std::string, double>> figures_;
};

class Dmd final : public JointObjective {
 public:
  using Options = DmdOptions;
  explicit Dmd(const Options& o) : o_(o) {}
  std::unique_ptr<OpenObjective> open(const Context& context) const override { return std::make_unique<OpenDmd>(o_, context); }
  void check(const Requirements&) const override { o_.teacher.check(); }

 private:
  Options o_;
};

}  // namespace

void register_objective_dmd(Registry& r) {
  r.add<Objective, Dmd>("dmd", "distribution matching distillation: a few-step generator with the teacher's scores");
}

}  // namespace brume::plugins
