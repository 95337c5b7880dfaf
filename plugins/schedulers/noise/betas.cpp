// A discrete schedule by its betas (Ho et al. 2020, eq. 2; "trained_betas" of diffusers).
#include "brume/config/registry.h"
#include "brume/numerics/discrete_schedule.h"

namespace brume::plugins {
namespace {

struct Betas {
  std::vector<double> betas = {1e-4, 0.02};
  void declare(Fields& f) {
    f.field("betas", betas, "beta_t, t = 0 ... T - 1; the last may be 1 (zero terminal SNR)", within(1e-12, 1));
    f.require(betas.size() >= 2, "betas", "needs at least 2 entries");
  }
  BetaTable table() const { return BetaTable(betas); }
};

}  // namespace

void register_noise_betas(Registry& r) { r.add<NoiseSchedule, DiscreteSchedule<Betas>>("betas", "a list of betas"); }

}  // namespace brume::plugins
