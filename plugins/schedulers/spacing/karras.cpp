// The spacing of EDM (Karras et al. 2022, eq. 5).
//
//   sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  i = 0 ... n-1
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
    SigmaRange range;
    bool inclusive = true;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("rho", rho, "curvature: larger puts more steps at low noise", at_least(1));
      range.declare(f);
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
    }
  };
  explicit Karras(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const auto [lo, hi] = o_.range.of(schedule);
    std::vector<double> sigmas = linspace(std::pow(hi, 1 / o_.rho), std::pow(lo, 1 / o_.rho), steps + !o_.inclusive);
    for (double& s : sigmas) s = std::pow(s, o_.rho);
    if (!o_.inclusive) sigmas.pop_back();
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_karras(Registry& r) { r.add<Spacing, Karras>("karras", "sigma^(1/rho) in equal steps (EDM)"); }

}  // namespace brume::plugins
