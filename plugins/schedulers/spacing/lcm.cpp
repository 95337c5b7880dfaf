// The times of latent consistency models (Luo et al. 2023, sec. 4.3 "skipping-step"): some of those the model was distilled at.
//
//   original: t_j = j (T div k) - 1, j = k ... 1;   those at the places floor(i k / steps), i = 0 ... steps-1
#include <fmt/format.h>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Lcm final : public Spacing {
 public:
  struct Options {
    int64_t original_steps = 50;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("original_steps", original_steps, "steps k of the solver the model was distilled with", at_least(1));
      declare_final(f, final_sigma);
    }
  };
  explicit Lcm(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const int64_t count = schedule.timesteps(), k = o_.original_steps;
    if (count == 0) throw ConfigError("spacing lcm needs a discrete noise schedule");
    if (k > count) throw ConfigError(fmt::format("original_steps {} are more than the {} training times", k, count));
    if (steps > k) throw ConfigError(fmt::format("{} steps are more than original_steps {}", steps, k));
    std::vector<double> times;
    for (int64_t i = 0; i < steps; ++i) times.push_back(double((k - i * k / steps) * (count / k) - 1));
    return sigmas_at(schedule, times, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_lcm(Registry& r) { r.add<Spacing, Lcm>("lcm", "some of the times a consistency model was distilled at"); }

}  // namespace brume::plugins
