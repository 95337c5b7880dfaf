// Any discrete schedule, rescaled so that nothing of the image is left at its last time (Lin et al. 2024, alg. 1).
//
//   sqrt(alpha_bar'_t) = (sqrt(alpha_bar_t) - sqrt(alpha_bar_T)) sqrt(alpha_bar_0) / (sqrt(alpha_bar_0) - sqrt(alpha_bar_T))
//
// The last sigma is infinite; it is capped (docs/design.md, 1).
#include <algorithm>
#include <cmath>
#include <memory>

#include "brume/config/registry.h"
#include "brume/numerics/discrete_schedule.h"

namespace brume::plugins {
namespace {

struct ZeroTerminalSnr {
  std::shared_ptr<const NoiseSchedule> schedule;
  double max_sigma = 1e6;
  void declare(Fields& f) {
    f.field("schedule", schedule, "the schedule that is rescaled; a discrete one", "scaled_linear");
    f.field("max_sigma", max_sigma, "replaces the infinite sigma of the last time (4096 in diffusers' Euler and DPM-Solver)",
            within(100, 1e6));
    f.require(!schedule || schedule->timesteps() > 0, "schedule", "must be discrete: only those have a last time to rescale");
  }
  BetaTable table() const {
    const auto root = [&](int64_t t) { return 1 / std::hypot(1, schedule->sigma(double(t))); };
    const int64_t last = schedule->timesteps() - 1;
    const double shift = root(last), scale = root(0) / (root(0) - shift);
    std::vector<double> alpha_bars;
    for (int64_t t = 0; t < last; ++t) alpha_bars.push_back(std::pow((root(t) - shift) * scale, 2));
    alpha_bars.push_back(1 / (1 + max_sigma * max_sigma));
    return BetaTable::from_alpha_bars(alpha_bars);
  }
};

}  // namespace

void register_noise_zero_terminal_snr(Registry& r) {
  r.add<NoiseSchedule, DiscreteSchedule<ZeroTerminalSnr>>("zero_terminal_snr", "a discrete schedule rescaled to end in pure noise");
}

}  // namespace brume::plugins
