// Times in equal steps, not rounded, as k-diffusion has them: `normal` includes the lowest level, `sgm_uniform` leaves it out (ComfyUI).
//
//   t_i = t_max + i / (levels - 1) (t_min - t_max),  levels = steps, or steps + 1 without the lowest
//
// In flow matching the time of a level is s itself, so that the model's shift acts a second time (see numerics/level_table.h).
#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/beta_table.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Normal final : public Spacing {
 public:
  struct Options {
    int64_t times = 1000;
    bool inclusive = true;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("times", times, "levels in the table of a continuous schedule", at_least(2));
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
    }
  };
  explicit Normal(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, o_.times);
    constexpr double nothing = 1e-5;  // a lowest level that is as good as 0 is the end of the run, not a step
    const bool lowest = o_.inclusive && table.value(table.at(table.first_time())) > nothing;
    std::vector<double> sigmas;
    for (const double t : linspace(table.last_time(), table.first_time(), steps + !lowest)) sigmas.push_back(table.at(t));
    if (!lowest) sigmas.pop_back();
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_normal(Registry& r) {
  r.add<Spacing, Normal>("normal", "times in equal steps, not rounded (k-diffusion, ComfyUI)");
  r.preset<Spacing, Normal>("sgm_uniform", "normal", "times in equal steps without the lowest (ComfyUI)",
                            [](Normal::Options& o) { o.inclusive = false; });
}

}  // namespace brume::plugins
