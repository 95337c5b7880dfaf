// Shortcut models (Frans et al. 2025, "One Step Diffusion via Shortcut Models"): the network learns steps of length h = 2^-k; a step of 2h
// is to be two of h, and the shortest are those of flow matching. No teacher.
//
//   z_t = (1 - t) x0 + t n;   with probability 1 - ratio:  loss = |u(z_t, t, 0) - (n - x0)|^2                            (eq. 5)
//   else  u1 = u(z_t, t, h),  z' = z_t - h u1,  u2 = u(z', t - h, h),  loss = |u(z_t, t, 2h) - stop-gradient(u1 + u2) / 2|^2
//
// t is a multiple of 2h. A step of the shortest length 2^-halvings is asked as one of length 0, which flow matching teaches. Sample with
// `flow_map` in 2^k steps of equal length in t.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/rows.h"
#include "brume/numerics/flow_map.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

class Shortcut final : public Objective {
 public:
  struct Options {
    int64_t halvings = 7;
    double ratio = 0.25;
    void declare(Fields& f) {
      f.field("halvings", halvings, "the shortest step is 2^-halvings", within(1, 20));
      f.field("ratio", ratio, "share of the images that learn a step of twice the length from two", within(0, 1));
    }
  };
  explicit Shortcut(const Options& o) : o_(o) {}
  bool denoises() const override { return false; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training&, at::Generator& random) const override {
    expect_interval(condition, "shortcut");
    const TimeRange range = flow_times(model.schedule());
    const Tensor drawn =
        draw_rows(3 * x0.size(0), [&](int64_t n) { return at::rand({n}, random, at::TensorOptions().dtype(at::kDouble)); });
    FlowSteps s{x0, {}, {}, {}};
    std::vector<double> sigmas, half, whole, doubled;
    for (int64_t i = 0; i < x0.size(0); ++i) {
      const double* u = drawn.data_ptr<double>() + 3 * i;
      const bool twice = u[0] < o_.ratio;
      const double length = twice ? std::exp2(-std::floor(u[1] * double(o_.halvings))) : 0;  // 2h: 1, 1/2, ... 2^(1 - halvings)
      const double t = twice ? length * (1 + std::floor(u[2] / length)) : u[2];
      s.t.push_back(std::clamp(t, range.least, range.most));
      whole.push_back(length), half.push_back(length / 2), doubled.push_back(twice);
      sigmas.push_back(s.t.back() / (1 - s.t.back()));
    }
    s.noise = add_noise(x0, sigmas, random).noise;
    const MeanVelocity u = mean_velocity(model, condition, random);
    const Tensor z = s.z(), target = targets(u, s, z, half, doubled, range);
    return (u(z, s.t, whole) - target).square().flatten(1).mean(1).mean();
  }

 private:
  Tensor targets(const MeanVelocity& u, const FlowSteps& s, const Tensor& z, const std::vector<double>& half,
                 const std::vector<double>& doubled, const TimeRange& range) const {
    const at::NoGradGuard no_grad;
    const double shortest = std::exp2(-double(o_.halvings));
    std::vector<double> later, asked;
    for (size_t i = 0; i < half.size(); ++i) {
      later.push_back(std::clamp(s.t[i] - half[i], range.least, range.most));
      asked.push_back(half[i] > shortest ? half[i] : 0);
    }
    const Tensor first = u(z, s.t, asked);
    const Tensor second = u(z - first * each_image(half, z, [](double h) { return h; }), later, asked);
    const Tensor choose = each_image(doubled, z, [](double d) { return d; });
    return at::where(choose > 0, (first + second) / 2, s.noise - s.x0);
  }
  Options o_;
};

}  // namespace

void register_objective_shortcut(Registry& r) {
  r.add<Objective, Shortcut>("shortcut", "shortcut models: steps of any power of 1/2, without a teacher");
}

}  // namespace brume::plugins
