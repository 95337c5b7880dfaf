// MeanFlow (Geng et al. 2025, "Mean Flows for One-step Generative Modeling"): the network learns the mean velocity u of the path from t to
// r, from an identity that it obeys; no teacher.
//
//   z_t = (1 - t) x0 + t n,   v = n - x0,   u(z_t, r, t) = v - (t - r) (d/dt) u(z_t, r, t)                                      (eq. 6)
//   S = |u - stop-gradient(v - (t - r) du/dt)|^2,   loss = mean S / stop-gradient(S + eps)^p                              (sec. 4.3)
//   t, r: the larger and smaller of two logit-normal draws; r = t with probability 1 - ratio
//
// The total derivative is a central difference along (v, 1): the fast operations of networks have no forward mode. It wants float32 and a
// network that is smooth in t (`noise: {type: flow, timestep_scale: 1}`). Sample with `flow_map`.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/rows.h"
#include "brume/numerics/flow_map.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

class MeanFlow final : public Objective {
 public:
  struct Options : MeanFlowLoss {
    double mean = -0.4, std = 1, ratio = 0.25;
    void declare(Fields& f) {
      f.field("mean", mean, "mean of the logit of t and r");
      f.field("std", std, "standard deviation of the logit of t and r", more_than(0));
      f.field("ratio", ratio, "share of the images with r < t; the others learn the velocity itself", within(0, 1));
      f.field("p", p, "power of the adaptive weight; 0 = squared error", within(0, 2));
      f.field("eps", eps, "keeps the adaptive weight finite", more_than(0));
      f.field("step", step, "of the difference quotient, in t", within(1e-6, 0.1));
    }
  };
  explicit MeanFlow(const Options& o) : o_(o) {}
  bool denoises() const override { return false; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training&, at::Generator& random) const override {
    expect_interval(condition, "mean_flow");
    const TimeRange range = flow_times(model.schedule());
    const auto options = at::TensorOptions().dtype(at::kDouble);
    const Tensor pairs = draw_rows(2 * x0.size(0), [&](int64_t n) { return at::randn({n}, random, options); });
    const Tensor chance = draw_rows(x0.size(0), [&](int64_t n) { return at::rand({n}, random, options); });
    FlowSteps s{x0, {}, {}, {}};
    std::vector<double> sigmas;
    for (int64_t i = 0; i < x0.size(0); ++i) {
      const auto time = [&](int64_t j) {
        return std::clamp(1 / (1 + std::exp(-(o_.mean + o_.std * pairs.data_ptr<double>()[j]))), range.least, range.most);
      };
      const double a = time(2 * i), b = time(2 * i + 1), t = std::max(a, b);
      s.t.push_back(t);
      s.r.push_back(chance.data_ptr<double>()[i] < 1 - o_.ratio ? t : std::min(a, b));
      sigmas.push_back(t / (1 - t));
    }
    s.noise = add_noise(x0, sigmas, random).noise;
    return mean_flow_losses(mean_velocity(model, condition, random), s, o_, range).mean();
  }

 private:
  Options o_;
};

}  // namespace

void register_objective_mean_flow(Registry& r) {
  r.add<Objective, MeanFlow>("mean_flow", "MeanFlow: the mean velocity of a step of any length, without a teacher");
}

}  // namespace brume::plugins
