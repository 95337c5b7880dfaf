// Training times in equal steps from the last to the first (strided sampling of Improved DDPM, Nichol & Dhariwal 2021;
// "linspace" of Lin et al. 2024, table 2).
#include <algorithm>
#include <cmath>

#include "config/registry.h"
#include "core/spacing.h"
#include "numerics/beta_table.h"
#include "numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Linspace final : public Spacing {
 public:
  struct Options {
    bool round = true;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("round", round, "round to the integers a discrete schedule was trained at");
      declare_final(f, final_sigma);
    }
  };
  explicit Linspace(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    std::vector<double> times = linspace(schedule.t_min(), schedule.t_max(), steps);
    if (steps == 1) times = {schedule.t_max()};
    std::reverse(times.begin(), times.end());
    if (o_.round && schedule.timesteps() > 0)
      for (double& t : times) t = std::nearbyint(t);
    return sigmas_at(schedule, times, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_linspace(Registry& r) { r.add<Spacing, Linspace>("linspace", "training times in equal steps, both ends included"); }

}  // namespace brume::plugins
