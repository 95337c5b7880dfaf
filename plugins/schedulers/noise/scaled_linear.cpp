// The schedule of latent diffusion (Rombach et al. 2022; Stable Diffusion).
//
//   sqrt(beta_t) from sqrt(beta_start) to sqrt(beta_end) in equal steps
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/discrete_schedule.h"

namespace brume::plugins {
namespace {

struct ScaledLinear {
  int64_t timesteps = 1000;
  double beta_start = 0.00085, beta_end = 0.012;
  void declare(Fields& f) {
    f.field("timesteps", timesteps, "number of training times T", at_least(2));
    f.field("beta_start", beta_start, "beta at t = 0", within(1e-12, 1));
    f.field("beta_end", beta_end, "beta at t = T - 1", within(1e-12, 1));
    f.require(beta_start <= beta_end, "beta_start", "must not exceed beta_end");
  }
  BetaTable table() const {
    std::vector<double> betas = linspace(std::sqrt(beta_start), std::sqrt(beta_end), timesteps);
    for (double& b : betas) b *= b;
    return BetaTable(betas);
  }
};

}  // namespace

void register_noise_scaled_linear(Registry& r) {
  r.add<NoiseSchedule, DiscreteSchedule<ScaledLinear>>("scaled_linear", "square roots of beta in equal steps (Stable Diffusion)");
}

}  // namespace brume::plugins
