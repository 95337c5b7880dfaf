// Quantiles of a Beta distribution (Lee et al. 2024, "Beta sampling is all you need"): more steps at both ends.
//
//   sigma_i = sigma_min + Q(1 - i/(n-1)) (sigma_max - sigma_min),  Q: the quantile function of Beta(alpha, beta)
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/beta_distribution.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Beta final : public Spacing {
 public:
  struct Options {
    double alpha = 0.6, beta = 0.6;
    SigmaGrid grid;
    void declare(Fields& f) {
      f.field("alpha", alpha, "below 1: steps gather at low noise", within(0.05, 50));
      f.field("beta", beta, "below 1: steps gather at high noise", within(0.05, 50));
      grid.declare(f);
    }
  };
  explicit Beta(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    return o_.grid.sigmas(schedule, steps,
                          [&](double r, double lo, double hi) { return lo + beta_quantile(r, o_.alpha, o_.beta) * (hi - lo); });
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_beta(Registry& r) { r.add<Spacing, Beta>("beta", "quantiles of a Beta distribution of sigma"); }

}  // namespace brume::plugins
