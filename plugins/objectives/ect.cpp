// Easy consistency tuning (Geng et al. 2024, "Consistency Models Made Easy", sec. 3): a trained model (`train.from`) becomes a consistency
// model while the pair of noise levels of one path comes together, from denoising (r = 0) on.
//
//   r(t) = max(0, t (1 - q^-(stage + 1) (1 + k sigmoid(-b t)))),   stage = floor(stages step / steps)
//   loss = (sqrt(|D(x0 + t n, t) - stop-gradient D(x0 + r n, r)|^2 + c^2) - c) / (t - r);   D(., 0) is the image
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/where.h>

#include "brume/config/registry.h"
#include "brume/numerics/companion_network.h"
#include "brume/numerics/distillation.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

class Ect final : public Objective {
 public:
  struct Options : EasyConsistency {
    int64_t stages = 8;
    double mean = -1.1, std = 2;
    void declare(Fields& f) {
      f.field("q", q, "t - r shrinks by this factor from stage to stage", more_than(1));
      f.field("k", k, "t - r is up to 1 + k / 2 times as large at low noise", at_least(0));
      f.field("b", b, "scale of t in that", at_least(0));
      f.field("c", c, "of the pseudo-Huber distance", at_least(0));
      f.choice("mapping", constant, "t - r is a share of t that depends on t, or a constant share",
               {{"sigmoid", false}, {"constant", true}});
      f.field("stages", stages, "of the training, equally long", at_least(1));
      f.field("mean", mean, "mean of log t (P_mean)");
      f.field("std", std, "standard deviation of log t (P_std)", more_than(0));
    }
  };
  explicit Ect(const Options& o) : o_(o) {}
  bool denoises() const override { return false; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const int64_t stage = std::min(o_.stages - 1, o_.stages * training.step / std::max<int64_t>(1, training.steps));
    const std::vector<double> levels = log_normal_levels(model.schedule(), x0.size(0), o_.mean, o_.std, random);
    const double least = model.schedule().sigma(model.schedule().t_min());
    std::vector<double> below, known;
    for (const double t : levels) {
      const double r = std::min(o_.below(t, stage), t * (1 - 1e-6));
      known.push_back(r < least);  // the image itself
      below.push_back(std::max(r, least));
    }
    const NoisyBatch b = add_noise(x0, levels, random);
    const Tensor before_dropout = random.get_state();
    const Tensor online = denoised(model, b.x, b.sigmas, condition);
    random.set_state(before_dropout);
    const Tensor target = [&] {
      const at::NoGradGuard no_grad;
      const Tensor x = x0 + b.noise * each_image(below, x0, [](double r) { return r; });
      return at::where(each_image(known, x0, [](double k) { return k; }) > 0, x0, denoised(model, x, below, condition));
    }();
    for (size_t i = 0; i < below.size(); ++i)
      if (known[i] > 0) below[i] = 0;
    return o_.losses(online, target, levels, below).mean();
  }

 private:
  Options o_;
};

}  // namespace

void register_objective_ect(Registry& r) {
  r.add<Objective, Ect>("ect", "easy consistency tuning: a consistency model from a trained one");
}

}  // namespace brume::plugins
