// Discrete diffusion (Austin et al. 2021, D3PM, eq. 1 and 5): the bound of the chain of codes, one term per image, and a share of the
// cross-entropy of x0. The chain has the schedule's training times; its kernel is the parameterization's.
//
//   L = T (KL(q(x_s | x_t, x0) || p(x_s | x_t)) + lambda (-log p(x0))),   s = t - 1;   the last KL is -log p(x0 | x_1)
//
// in nats per code. The bound is a sum over T steps, and the authors' code weights its mean, so lambda counts T times here. Every step is
// eq. 4 (numerics/code_chain.h), the last one included, for which the authors' code takes the logits alone.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/code_chain.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

class D3pm final : public Objective, public OfCodes {
 public:
  struct Options {
    double lambda = 1e-3;
    std::shared_ptr<const TimeSampler> time;
    void declare(Fields& f) {
      f.field("lambda", lambda, "weight of the cross-entropy of x0, over that of one step of the bound", at_least(0));
      f.field("time", time, "distribution of the noise levels", "uniform");
    }
  };
  explicit D3pm(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const NoiseSchedule& schedule = model.schedule();
    const CodeKernel kernel = expect_code_model({schedule, model.parameterization(), model.variance()});
    const TimeSampler::Draw drawn = draw_times(*o_.time, schedule, x0.size(0), training.memory, random);
    const NoisyCodes b = corrupt(kernel, schedule, x0, drawn.sigmas, random);
    std::vector<CodeStep> steps;
    for (const double sigma : b.sigmas) steps.push_back(chain_step(schedule, sigma));
    const Tensor logits = model.network(b.x, b.sigmas, condition);
    Tensor terms = step_divergence(kernel, b.x, x0, logits, steps);
    if (o_.lambda > 0) terms = terms + code_cross_entropy(x0, logits) * o_.lambda;
    const Tensor losses = terms.flatten(1).mean(1) * double(schedule.timesteps());
    return mean_loss(*o_.time, schedule, drawn, losses, training.memory);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return o_.time->memory(schedule); }
  void check(const Requirements& r) const override {
    expect_code_model(r);
    if (r.schedule.timesteps() == 0)
      throw ConfigError("trains a chain of steps, and model.noise has no training times; take cosine or linear, or the objective mdlm");
  }
  bool denoises() const override { return false; }
  std::optional<CodeKernel> kernel() const override { return {}; }

 private:
  Options o_;
};

}  // namespace

void register_objective_d3pm(Registry& r) {
  r.add<Objective, D3pm>("d3pm", "discrete diffusion of codes, by the bound of a chain with uniform or absorbing noise");
}

}  // namespace brume::plugins
