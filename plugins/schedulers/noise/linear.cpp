// The linear schedule of DDPM (Ho et al. 2020, sec. 4).
//
//   beta_t from beta_start to beta_end in equal steps
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/discrete_schedule.h"

namespace brume::plugins {
namespace {

struct Linear {
  int64_t timesteps = 1000;
  double beta_start = 1e-4, beta_end = 0.02;
  bool rescale = false;
  void declare(Fields& f) {
    f.field("timesteps", timesteps, "number of training times T", at_least(2));
    f.field("beta_start", beta_start, "beta at t = 0", within(1e-12, 1));
    f.field("beta_end", beta_end, "beta at t = T - 1", within(1e-12, 1));
    f.field("rescale", rescale, "the betas are meant for T = 1000 and are scaled by 1000 / T (improved-diffusion)");
    f.require(beta_start <= beta_end, "beta_start", "must not exceed beta_end");
    f.require(!rescale || beta_end * 1000 / double(timesteps) < 1, "timesteps", "with rescale, must be more than 1000 * beta_end",
              "too few: the rescaled beta_end would reach 1");
  }
  BetaTable table() const {
    const double scale = rescale ? 1000.0 / double(timesteps) : 1;
    return BetaTable(linspace(scale * beta_start, scale * beta_end, timesteps));
  }
};

}  // namespace

void register_noise_linear(Registry& r) { r.add<NoiseSchedule, DiscreteSchedule<Linear>>("linear", "betas in equal steps (DDPM)"); }

}  // namespace brume::plugins
