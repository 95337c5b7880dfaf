// The sigmoid schedule of GeoDiff (Xu et al. 2022), as diffusers has it.
//
//   beta_t = beta_start + (beta_end - beta_start) sigmoid(u), u from -6 to 6 in equal steps
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/discrete_schedule.h"

namespace brume::plugins {
namespace {

struct Sigmoid {
  int64_t timesteps = 1000;
  double beta_start = 1e-4, beta_end = 0.02;
  void declare(Fields& f) {
    f.field("timesteps", timesteps, "number of training times T", at_least(2));
    f.field("beta_start", beta_start, "beta towards t = 0", within(1e-12, 1));
    f.field("beta_end", beta_end, "beta towards t = T - 1", within(1e-12, 1));
    f.require(beta_start <= beta_end, "beta_start", "must not exceed beta_end");
  }
  BetaTable table() const {
    std::vector<double> betas = linspace(-6, 6, timesteps);
    for (double& b : betas) b = beta_start + (beta_end - beta_start) / (1 + std::exp(-b));
    return BetaTable(betas);
  }
};

}  // namespace

void register_noise_sigmoid(Registry& r) { r.add<NoiseSchedule, DiscreteSchedule<Sigmoid>>("sigmoid", "sigmoid of beta (GeoDiff)"); }

}  // namespace brume::plugins
