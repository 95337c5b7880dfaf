// The cosine schedule of Improved DDPM (Nichol & Dhariwal 2021, eq. 17).
//
//   alpha_bar(u) = cos^2(pi/2 (u + s) / (1 + s)),  beta_t = min(1 - alpha_bar((t+1)/T) / alpha_bar(t/T), max_beta)
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/discrete_schedule.h"

namespace brume::plugins {
namespace {

struct Cosine {
  int64_t timesteps = 1000;
  double s = 0.008, max_beta = 0.999;
  void declare(Fields& f) {
    f.field("timesteps", timesteps, "number of training times T", at_least(2));
    f.field("s", s, "offset that keeps the first betas from vanishing", within(0, 1));
    f.field("max_beta", max_beta, "upper bound of beta near t = T", within(1e-6, 0.999999));
  }
  BetaTable table() const {
    const auto alpha_bar = [&](double u) { return std::pow(std::cos((u + s) / (1 + s) * M_PI / 2), 2); };
    return BetaTable(betas_of(alpha_bar, timesteps, max_beta));
  }
};

}  // namespace

void register_noise_cosine(Registry& r) {
  r.add<NoiseSchedule, DiscreteSchedule<Cosine>>("cosine", "squared cosine of alpha_bar (Improved DDPM)");
}

}  // namespace brume::plugins
