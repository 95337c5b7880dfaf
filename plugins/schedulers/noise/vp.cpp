// The variance-preserving and sub-variance-preserving processes in continuous time (Song et al. 2021b, sec. 3.4 and app. C).
//
//   B(t) = beta_min t + (beta_max - beta_min) t^2 / 2,  signal = e^(-B/2)
//   vp:      sigma = sqrt(e^B - 1)                                  (variance 1 - e^-B)
//   sub_vp:  sigma = e^(B/2) - e^(-B/2)                             (variance (1 - e^-B)^2)
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/noise_schedule.h"

namespace brume::plugins {
namespace {

struct VpOptions {
  double beta_min = 0.1, beta_max = 20, epsilon = 1e-3, timestep_scale = 999;
  void declare(Fields& f) {
    f.field("beta_min", beta_min, "beta at t = 0", more_than(0));
    f.field("beta_max", beta_max, "beta at t = 1", more_than(0));
    f.field("epsilon", epsilon, "the first time; 0 itself has no noise", within(1e-8, 0.5));
    f.renamed("told_scale", "timestep_scale");
    f.field("timestep_scale", timestep_scale, "timestep given to the network, over t", more_than(0));
    f.require(beta_min <= beta_max, "beta_min", "must not exceed beta_max");
  }
};

template <bool sub>
class Vp final : public NoiseSchedule {
 public:
  using Options = VpOptions;
  explicit Vp(const Options& o) : o_(o) {}

  double sigma(double t) const override {
    const double b = t * (o_.beta_min + t * (o_.beta_max - o_.beta_min) / 2);
    return sub ? 2 * std::sinh(b / 2) : std::sqrt(std::expm1(b));
  }
  double time(double sigma) const override {
    if (sigma >= this->sigma(1)) return 1;
    const double b = sub ? 2 * std::asinh(sigma / 2) : std::log1p(sigma * sigma), d = o_.beta_max - o_.beta_min;
    const double t = 2 * b / (o_.beta_min + std::sqrt(o_.beta_min * o_.beta_min + 2 * d * b));
    return std::clamp(t, o_.epsilon, 1.0);
  }
  double t_min() const override { return o_.epsilon; }
  double t_max() const override { return 1; }
  double timestep(double sigma) const override { return o_.timestep_scale * time(sigma); }
  double signal(double sigma) const override { return sub ? std::exp(-std::asinh(sigma / 2)) : 1 / std::sqrt(1 + sigma * sigma); }
  double start_std(double sigma) const override { return 1 / signal(sigma); }

 private:
  Options o_;
};

}  // namespace

void register_noise_vp(Registry& r) {
  r.add<NoiseSchedule, Vp<false>>("vp", "variance preserving, continuous (score SDE)");
  r.add<NoiseSchedule, Vp<true>>("sub_vp", "sub-variance preserving, continuous (score SDE)");
}

}  // namespace brume::plugins
