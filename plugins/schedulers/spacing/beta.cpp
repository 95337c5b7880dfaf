// Quantiles of a Beta distribution (Lee et al. 2024, "Beta sampling is all you need"): more steps at both ends.
//
//   over sigma:  sigma_i = sigma_min + Q(1 - i/(n-1)) (sigma_max - sigma_min),  Q: the quantile function of Beta(alpha, beta)
//   over time:   level[rint(Q(1 - i / n) (T - 1))],  i = 0 ... n-1          (ComfyUI; the levels of numerics/level_table.h)
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/beta_distribution.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Beta final : public Spacing {
 public:
  struct Options {
    double alpha = 0.6, beta = 0.6;
    SigmaGrid grid;
    bool over_time = false, merge = false;
    int64_t times = 1000;
    void declare(Fields& f) {
      f.field("alpha", alpha, "below 1: steps gather at low noise", within(0.05, 50));
      f.field("beta", beta, "below 1: steps gather at high noise", within(0.05, 50));
      f.choice("over", over_time, "what the quantiles are of: sigma, or the place in the table of levels (ComfyUI, stable-diffusion.cpp)",
               {{"sigma", false}, {"time", true}});
      f.field("times", times, "levels in the table of a continuous schedule, over time", at_least(2));
      f.unused(!over_time, "times", "over is sigma");
      declare_merge(f, merge);
      grid.declare(f);
    }
  };
  explicit Beta(const Options& o) : o_(o) {
    const SigmaGrid& g = o_.grid;
    if (o_.over_time && (g.range.sigma_min || g.range.sigma_max || g.ends_of || !g.inclusive))
      throw ConfigError("over: time has the ends of the table: sigma_min, sigma_max, ends_of and inclusive are of sigma alone");
  }

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    if (o_.over_time) return over_time(schedule, steps);
    return o_.grid.sigmas(schedule, steps,
                          [&](double r, double lo, double hi) { return lo + beta_quantile(r, o_.alpha, o_.beta) * (hi - lo); });
  }

 private:
  std::vector<double> over_time(const NoiseSchedule& schedule, int64_t steps) const {
    const LevelTable table(schedule, o_.times);
    constexpr double rounding = 1e-9;  // of the quantile 1/2, whose place is between two levels
    std::vector<double> sigmas;
    for (int64_t i = 0; i < steps; ++i) {
      const double place = beta_quantile(1 - double(i) / double(steps), o_.alpha, o_.beta);
      sigmas.push_back(table.sigma(std::lrint(place * double(table.size() - 1) + rounding)));
    }
    return merged_levels(with_final(std::move(sigmas), schedule, o_.grid.final_sigma), o_.merge);
  }
  Options o_;
};

}  // namespace

void register_spacing_beta(Registry& r) {
  r.add<Spacing, Beta>("beta", "quantiles of a Beta distribution, of sigma or of time");
  r.preset<Spacing, Beta>("beta_time", "beta", "quantiles of a Beta distribution of time (ComfyUI's beta)",
                          [](Beta::Options& o) { o.over_time = true; });
  r.preset<Spacing, Beta>("beta57", "beta", "quantiles of Beta(0.5, 0.7) of time (RES4LYF)",
                          [](Beta::Options& o) { o.over_time = true, o.alpha = 0.5, o.beta = 0.7; });
}

}  // namespace brume::plugins
