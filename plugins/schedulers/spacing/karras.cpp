// The spacing of EDM (Karras et al. 2022, eq. 5).
//
//   sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  i = 0 ... n-1
#include <cmath>

#include "config/registry.h"
#include "core/spacing.h"
#include "numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Karras final : public Spacing {
 public:
  struct Options {
    double rho = 7;
    SigmaGrid grid;
    void declare(Fields& f) {
      f.field("rho", rho, "curvature: larger puts more steps at low noise", at_least(1));
      grid.declare(f);
    }
  };
  explicit Karras(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    return o_.grid.sigmas(schedule, steps, [&](double r, double lo, double hi) {
      const double low = std::pow(lo, 1 / o_.rho), high = std::pow(hi, 1 / o_.rho);
      return std::pow(low + r * (high - low), o_.rho);
    });
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_karras(Registry& r) { r.add<Spacing, Karras>("karras", "sigma^(1/rho) in equal steps (EDM)"); }

}  // namespace brume::plugins
