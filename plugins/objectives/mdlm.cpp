// Masked diffusion (Sahoo et al. 2024, "Simple and Effective Masked Diffusion Language Models", eq. 10): the cross-entropy of masked codes,
// weighted by how fast the schedule unmasks them. It is the bound of the absorbing chain with infinitely many steps, in nats per code.
//
//   L = integral over t of -alpha'(t) / (1 - alpha(t)) sum over masked positions of -log p(x0)
//
// A schedule with T training times has the steps of its chain: T (alpha_s - alpha_t) / (1 - alpha_t), s = t - 1 (eq. 9). The network's
// logits are of the K codes, never of the mask, and what is unmasked is taken as it is: SUBS of sec. 3.2.3.
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/numerics/code_chain.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

/// Returns the weight of sigma under times that are drawn evenly.
double unmasking(const NoiseSchedule& schedule, double sigma) {
  if (schedule.timesteps() > 0) return double(schedule.timesteps()) * revealed(chain_step(schedule, sigma));
  const double begin = schedule.t_min(), end = schedule.t_max(), near = 1e-5 * (end - begin), t = schedule.time(sigma);
  const double a = std::max(begin, t - near), b = std::min(end, t + near);
  const auto alpha = [&](double time) { return code_rate(schedule, schedule.sigma(time)); };
  return (end - begin) * (alpha(a) - alpha(b)) / (b - a) / (1 - code_rate(schedule, sigma));
}

class Mdlm final : public Objective, public OfCodes {
 public:
  struct Options {
    std::shared_ptr<const TimeSampler> time;
    void declare(Fields& f) { f.field("time", time, "distribution of the noise levels", "low_discrepancy"); }
  };
  explicit Mdlm(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const NoiseSchedule& schedule = model.schedule();
    const TimeSampler::Draw drawn = draw_times(*o_.time, schedule, x0.size(0), training.memory, random);
    const NoisyCodes b = corrupt(CodeKernel::absorbing, schedule, x0, drawn.sigmas, random);
    const Tensor errors = code_cross_entropy(x0, model.network(b.x, b.sigmas, condition)) * masked(b.x).squeeze(1);
    const Tensor weights = each_image(b.sigmas, errors, [&](double sigma) { return unmasking(schedule, sigma); });
    return mean_loss(*o_.time, schedule, drawn, (errors * weights).flatten(1).mean(1), training.memory);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return o_.time->memory(schedule); }
  void check(const Requirements& r) const override {
    if (expect_code_model(r) != CodeKernel::absorbing)
      throw ConfigError(
          "trains models that unmask codes; set the kernel of model.parameterization to absorbing, or take the objective d3pm");
  }
  bool denoises() const override { return false; }
  std::optional<CodeKernel> kernel() const override { return CodeKernel::absorbing; }

 private:
  Options o_;
};

}  // namespace

void register_objective_mdlm(Registry& r) {
  r.add<Objective, Mdlm>("mdlm", "masked diffusion of codes: the weighted cross-entropy of what is masked");
}

}  // namespace brume::plugins
