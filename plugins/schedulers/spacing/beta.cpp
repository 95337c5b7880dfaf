// Quantiles of a Beta distribution (Lee et al. 2024, "Beta sampling is all you need"): more steps at both ends.
//
//   sigma_i = sigma_min + Q(1 - i/(n-1)) (sigma_max - sigma_min),  Q: the quantile function of Beta(alpha, beta)
#include <cmath>

#include "config/registry.h"
#include "core/spacing.h"
#include "numerics/beta_distribution.h"
#include "numerics/beta_table.h"
#include "numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Beta final : public Spacing {
 public:
  struct Options {
    double alpha = 0.6, beta = 0.6;
    SigmaRange range;
    bool inclusive = true;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("alpha", alpha, "below 1: steps gather at low noise", within(0.05, 50));
      f.field("beta", beta, "below 1: steps gather at high noise", within(0.05, 50));
      range.declare(f);
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
    }
  };
  explicit Beta(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const auto [lo, hi] = o_.range.of(schedule);
    std::vector<double> sigmas = linspace(1, 0, steps + !o_.inclusive);
    for (double& s : sigmas) s = lo + beta_quantile(s, o_.alpha, o_.beta) * (hi - lo);
    if (!o_.inclusive) sigmas.pop_back();
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_beta(Registry& r) { r.add<Spacing, Beta>("beta", "quantiles of a Beta distribution of sigma"); }

}  // namespace brume::plugins
