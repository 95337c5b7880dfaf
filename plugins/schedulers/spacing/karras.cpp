// The spacing of EDM (Karras et al. 2022, eq. 5).
//
//   sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  i = 0 ... n-1
#include <fmt/format.h>

#include <cmath>

#include "config/registry.h"
#include "core/spacing.h"
#include "numerics/beta_table.h"
#include "numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Karras final : public Spacing {
 public:
  struct Options {
    double rho = 7;
    std::optional<double> sigma_min, sigma_max;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("rho", rho, "curvature: larger puts more steps at low noise", at_least(1));
      f.field("sigma_min", sigma_min, "last sigma before the final one; null = the schedule's smallest", more_than(0));
      f.field("sigma_max", sigma_max, "first sigma; null = the schedule's largest", more_than(0));
      declare_final(f, final_sigma);
      f.require(!sigma_min || !sigma_max || *sigma_min < *sigma_max, "sigma_min", "must be less than sigma_max");
    }
  };
  explicit Karras(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const double hi = o_.sigma_max.value_or(schedule.sigma(schedule.t_max()));
    const double lo = o_.sigma_min.value_or(schedule.sigma(schedule.t_min()));
    if (lo >= hi) throw ConfigError(fmt::format("sigma_min {} is not less than sigma_max {}", lo, hi));
    std::vector<double> sigmas = linspace(std::pow(hi, 1 / o_.rho), std::pow(lo, 1 / o_.rho), steps);
    for (double& s : sigmas) s = std::pow(s, o_.rho);
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_karras(Registry& r) { r.add<Spacing, Karras>("karras", "sigma^(1/rho) in equal steps (EDM)"); }

}  // namespace brume::plugins
