// The times of latent consistency models (Luo et al. 2023, sec. 4.3 "skipping-step"): some of those the model was distilled at.
//
//   original: t_j = j (T div k) - 1, j = m ... 1, m = floor(k share);   those at the places floor(i m / steps), i = 0 ... steps-1
//
// Flow matching has T = 1000 levels, as in stable-diffusion.cpp (see numerics/level_table.h).
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Lcm final : public Spacing {
 public:
  struct Options {
    int64_t original_steps = 50;
    double share = 1;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("original_steps", original_steps, "steps k of the solver the model was distilled with", at_least(1));
      f.field("share", share, "share of those k steps, from the clean end, that the steps are taken from (diffusers' strength)",
              within(1e-6, 1));
      declare_final(f, final_sigma);
    }
  };
  explicit Lcm(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, 1000);
    if (schedule.timesteps() == 0 && !table.flow())
      throw ConfigError("spacing lcm needs a discrete noise schedule, or that of flow matching");
    const int64_t count = table.size(), k = o_.original_steps, m = int64_t(double(k) * o_.share);
    if (k > count) throw ConfigError(fmt::format("original_steps {} are more than the {} training times", k, count));
    if (steps > m)
      throw ConfigError(m == k ? fmt::format("{} are more than original_steps {}", counted(steps, "step"), k)
                               : fmt::format("{} are more than the {} that the share {} leaves of original_steps {}",
                                             counted(steps, "step"), m, o_.share, k));
    std::vector<double> sigmas;
    for (int64_t i = 0; i < steps; ++i) sigmas.push_back(table.sigma((m - i * m / steps) * (count / k) - 1));
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_lcm(Registry& r) { r.add<Spacing, Lcm>("lcm", "some of the times a consistency model was distilled at"); }

}  // namespace brume::plugins
