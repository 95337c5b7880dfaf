// alpha_bar falls exponentially ("exp" of diffusers).
//
//   alpha_bar(u) = e^(-rate u),  beta_t = min(1 - alpha_bar((t+1)/T) / alpha_bar(t/T), max_beta)
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/discrete_schedule.h"

namespace brume::plugins {
namespace {

struct Exponential {
  int64_t timesteps = 1000;
  double rate = 12, max_beta = 0.999;
  void declare(Fields& f) {
    f.field("timesteps", timesteps, "number of training times T", at_least(2));
    f.field("rate", rate, "-log alpha_bar at t = T", more_than(0));
    f.field("max_beta", max_beta, "upper bound of beta", within(1e-6, 0.999999));
  }
  BetaTable table() const {
    return BetaTable(betas_of([&](double u) { return std::exp(-rate * u); }, timesteps, max_beta));
  }
};

}  // namespace

void register_noise_exponential(Registry& r) {
  r.add<NoiseSchedule, DiscreteSchedule<Exponential>>("exponential", "alpha_bar falls exponentially");
}

}  // namespace brume::plugins
