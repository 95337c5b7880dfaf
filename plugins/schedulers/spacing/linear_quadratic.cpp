// A linear part, then a quadratic one (Polyak et al. 2024, "Movie Gen", sec. 3.4.2; Mochi's constants).
//
//   v_i = i threshold / L,  i < L = steps div 2;   v_i = threshold + threshold (i - L) / L + c (i - L)^2,  v_steps = 1
//   sigma_i = (1 - v_i) sigma_max
//
// sigma is s in flow matching.
#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class LinearQuadratic final : public Spacing {
 public:
  struct Options {
    double threshold = 0.025;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("threshold", threshold, "share of the way that the linear half covers", within(1e-4, 0.5));
      declare_final(f, final_sigma);
    }
  };
  explicit LinearQuadratic(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, 1000);
    const double linear = double(steps / 2), rest = double(steps) - linear, slope = linear > 0 ? o_.threshold / linear : 0;
    const double bend = (1 - o_.threshold - slope * rest) / (rest * rest), top = table.value(table.sigma(table.size() - 1));
    std::vector<double> sigmas;
    for (int64_t i = 0; i < steps; ++i) {
      const double past = std::max(0.0, double(i) - linear);
      sigmas.push_back(table.of_value((1 - slope * double(i) - bend * past * past) * top));
    }
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_linear_quadratic(Registry& r) {
  r.add<Spacing, LinearQuadratic>("linear_quadratic", "half of the steps over a small linear part, then a parabola (Mochi)");
}

}  // namespace brume::plugins
