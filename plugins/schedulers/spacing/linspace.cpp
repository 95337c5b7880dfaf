// Training times in equal steps from the last to the first (strided sampling of Improved DDPM, Nichol & Dhariwal 2021;
// "linspace" of Lin et al. 2024, table 2).
#include <algorithm>
#include <cmath>
#include <optional>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/beta_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Linspace final : public Spacing {
 public:
  struct Options {
    bool round = true, linear_sigma = false, inclusive = true;
    FinalSigma final_sigma = FinalSigma::zero;
    std::optional<double> sigma_max;
    void declare(Fields& f) {
      f.field("round", round, "round to the integers a discrete schedule was trained at");
      f.renamed("between", "interpolation");
      f.choice("interpolation", linear_sigma, "sigma between those integers, if not rounded: linear in log sigma or in sigma",
               {{"log_sigma", false}, {"sigma", true}});
      f.unused(round, "interpolation", "round is true");
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
      declare_clip(f, sigma_max);
    }
  };
  explicit Linspace(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const bool discrete = schedule.timesteps() > 0;
    const double last = clipped_time(schedule, o_.sigma_max);
    std::vector<double> times = linspace(schedule.t_min(), last, steps + !o_.inclusive);
    if (steps == 1 && o_.inclusive) times = {last};
    std::reverse(times.begin(), times.end());
    if (!o_.inclusive) times.pop_back();
    if (o_.round && discrete)
      for (double& t : times) t = std::nearbyint(t);
    std::vector<double> sigmas = sigmas_at(schedule, times, o_.final_sigma);
    if (o_.linear_sigma && discrete)
      for (size_t i = 0; i < times.size(); ++i) {
        const double below = std::floor(times[i]), fraction = times[i] - below;
        sigmas[i] = schedule.sigma(below) * (1 - fraction) + schedule.sigma(std::ceil(times[i])) * fraction;
      }
    return sigmas;
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_linspace(Registry& r) { r.add<Spacing, Linspace>("linspace", "training times in equal steps, both ends included"); }

}  // namespace brume::plugins
