// Any discrete schedule, rescaled so that nothing of the image is left at its last time (Lin et al. 2024, alg. 1).
//
//   sqrt(alpha_bar'_t) = (sqrt(alpha_bar_t) - sqrt(alpha_bar_T)) sqrt(alpha_bar_0) / (sqrt(alpha_bar_0) - sqrt(alpha_bar_T))
//
// The last sigma is infinite; it is capped (docs/design.md, 1).
#include <algorithm>
#include <cmath>
#include <memory>

#include "config/registry.h"
#include "core/noise_schedule.h"
#include "numerics/beta_table.h"

namespace brume::plugins {
namespace {

class ZeroTerminalSnr final : public NoiseSchedule {
 public:
  struct Options {
    std::shared_ptr<const NoiseSchedule> schedule;
    double max_sigma = 1e6;
    void declare(Fields& f) {
      f.field("schedule", schedule, "what is rescaled; a discrete one", "scaled_linear");
      f.field("max_sigma", max_sigma, "stands for the infinite sigma of the last time (4096 in diffusers' Euler and DPM-Solver)",
              within(100, 1e6));
      f.require(!schedule || schedule->timesteps() > 0, "schedule", "must be discrete: only those have a last time to rescale");
    }
  };
  explicit ZeroTerminalSnr(const Options& o) : table_(BetaTable::from_alpha_bars(rescaled(*o.schedule, o.max_sigma))) {}

  double sigma(double t) const override { return table_.sigma(t); }
  double time(double sigma) const override { return table_.time(sigma); }
  double t_min() const override { return 0; }
  double t_max() const override { return double(table_.size() - 1); }
  int64_t timesteps() const override { return table_.size(); }

 private:
  static std::vector<double> rescaled(const NoiseSchedule& schedule, double max_sigma) {
    const auto root = [&](int64_t t) { return 1 / std::hypot(1, schedule.sigma(double(t))); };
    const int64_t last = schedule.timesteps() - 1;
    const double shift = root(last), scale = root(0) / (root(0) - shift);
    std::vector<double> alpha_bars;
    for (int64_t t = 0; t < last; ++t) alpha_bars.push_back(std::pow((root(t) - shift) * scale, 2));
    alpha_bars.push_back(1 / (1 + max_sigma * max_sigma));
    return alpha_bars;
  }
  BetaTable table_;
};

}  // namespace

void register_noise_zero_terminal_snr(Registry& r) {
  r.add<NoiseSchedule, ZeroTerminalSnr>("zero_terminal_snr", "a discrete schedule rescaled to end in pure noise");
}

}  // namespace brume::plugins
