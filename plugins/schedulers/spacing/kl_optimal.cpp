// The spacing that keeps the Kullback-Leibler bound of each step equal (Sabour et al. 2024, "Align your steps", eq. 24).
//
//   sigma_i = tan((1 - r) atan(sigma_max) + r atan(sigma_min)),  r = i / (n - 1),  i = 0 ... n-1
//
// sigma is s in flow matching. Forge has `inclusive: false` and `final: minimum`.
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/beta_table.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class KlOptimal final : public Spacing {
 public:
  struct Options {
    int64_t times = 1000;
    SigmaRange range;
    bool inclusive = true;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("times", times, "levels in the table of a continuous schedule, the lowest of which is sigma_min", at_least(2));
      range.declare(f);
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
    }
  };
  explicit KlOptimal(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, o_.times);
    const auto [lo, hi] = o_.range.of(schedule);
    const double low = std::atan(table.value(o_.range.sigma_min ? lo : table.sigma(0))), high = std::atan(table.value(hi));
    std::vector<double> sigmas;
    for (const double angle : linspace(high, low, steps + !o_.inclusive)) sigmas.push_back(table.of_value(std::tan(angle)));
    if (!o_.inclusive) sigmas.pop_back();
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_kl_optimal(Registry& r) { r.add<Spacing, KlOptimal>("kl_optimal", "arctangent of sigma in equal steps"); }

}  // namespace brume::plugins
