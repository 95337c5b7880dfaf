// Progressive distillation (Salimans & Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", alg. 2): one step of the
// student is to end where two steps of DDIM of the teacher end.
//
//   x at sigma_i,  x' = two steps sigma_i -> sigma_(i+1) -> sigma_(i+2) of the teacher,  i even
//   target image X = (x' - q x) / (1 - q),  q = sigma_(i+2) / sigma_i;      loss = w |D(x, sigma_i) - X|^2,  w = max(1, SNR)
//
// Each halving is a training: `teacher` and `train.from` are the student before. Sample with ddim, in `steps` steps of the same spacing.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>

#include "brume/config/registry.h"
#include "brume/core/rows.h"
#include "brume/core/spacing.h"
#include "brume/numerics/distillation.h"
#include "brume/numerics/noising.h"
#include "brume/numerics/teacher.h"

namespace brume::plugins {
namespace {

class Progressive final : public Objective {
 public:
  struct Options {
    GuidedTeacher teacher;
    int64_t steps = 4;
    std::shared_ptr<const Spacing> spacing;
    TargetError error{.target = Target::image};
    void declare(Fields& f) {
      teacher.declare(f);
      f.field("steps", steps, "of the student; the teacher takes twice as many", within(1, 100000));
      f.field("spacing", spacing, "the noise levels of the teacher's steps", "trailing");
      error.declare_target(f);
      error.declare(f, "truncated_snr");
    }
  };
  explicit Progressive(const Options& o) : o_(o) {}
  bool denoises() const override { return false; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const std::shared_ptr<const Denoiser> teacher = o_.teacher.open(training, x0);
    const std::vector<double> sigmas = o_.spacing->sigmas(model.schedule(), 2 * o_.steps);
    const Tensor drawn =
        draw_rows(x0.size(0), [&](int64_t n) { return at::randint(o_.steps, {n}, random, at::TensorOptions().dtype(at::kLong)); });
    std::vector<double> from, middle, to;
    for (int64_t i = 0; i < x0.size(0); ++i) {
      const auto k = 2 * size_t(drawn.data_ptr<int64_t>()[i]);
      from.push_back(sigmas.at(k)), middle.push_back(sigmas.at(k + 1)), to.push_back(sigmas.at(k + 2));
    }
    NoisyBatch b = add_noise(x0, from, random, o_.error.noise);
    const Estimates taught = [&](const Tensor& x, const std::vector<double>& s) { return estimates(*teacher, x, s, condition); };
    b.x0 = progressive_target(taught, b.x, from, middle, to);
    b.noise = (b.x - b.x0) / each_image(from, b.x, [](double s) { return s; });
    return o_.error.per_image(b, model.network(b.x, from, condition), model.parameterization()).mean();
  }
  void check(const Requirements& r) const override {
    o_.teacher.check();
    const int64_t times = r.schedule.timesteps();
    if (times > 0 && 2 * o_.steps > times)
      throw ConfigError(fmt::format("steps: the teacher takes {}, and the schedule has {} times", 2 * o_.steps, times));
  }

 private:
  Options o_;
};

}  // namespace

void register_objective_progressive(Registry& r) {
  r.add<Objective, Progressive>("progressive", "progressive distillation: half as many steps as the teacher");
}

}  // namespace brume::plugins
