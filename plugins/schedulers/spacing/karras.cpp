// The spacing of EDM (Karras et al. 2022, eq. 5).
//
//   sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  i = 0 ... n-1
//
// With `levels`, some of those that a consistency model was trained at (Song et al. 2023): i (levels div n) / (levels - 1) for i / (n-1).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Karras final : public Spacing {
 public:
  struct Options {
    double rho = 7;
    std::optional<int64_t> levels;
    SigmaGrid grid;
    void declare(Fields& f) {
      f.field("rho", rho, "curvature: larger puts more steps at low noise", at_least(1));
      f.field("levels", levels, "levels of a grid; every (levels div steps)-th is a step, from the first on; null = the number of steps",
              at_least(2));
      grid.declare(f);
      f.require(!levels || grid.inclusive, "levels", "is for grids whose lowest level may be a step (inclusive: true)");
    }
  };
  explicit Karras(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const int64_t levels = o_.levels.value_or(steps);
    if (steps > levels) throw ConfigError(fmt::format("{} are more than the {}", counted(steps, "step"), counted(levels, "level")));
    const int64_t walked = (levels / steps) * (steps - 1);
    const double share = double(walked) / double(std::max<int64_t>(1, levels - 1));  // of the grid
    return o_.grid.sigmas(schedule, steps, [&](double even, double lo, double hi) {
      const double r = o_.levels ? 1 - (1 - even) * share : even;
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
