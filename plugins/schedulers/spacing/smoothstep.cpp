// The cubic 3 u^2 - 2 u^3 (stable-diffusion.cpp): over the levels of the table, or over the levels of another spacing (RES4LYF).
//
//   level[round((T - 1) S(1 - i / steps))],   S(u) = 3 u^2 - 2 u^3
//   with `of`:  v <- S((v - edge_0) / (edge_1 - edge_0)) of the other spacing's v, s in flow matching, else sigma / sigma_max
#include <algorithm>
#include <cmath>
#include <optional>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

struct Other {
  std::shared_ptr<const Spacing> spacing;
  double edge_0 = 0, edge_1 = 1;
  void declare(Fields& f) {
    f.field("spacing", spacing, "the other spacing", "simple");
    f.field("edge_0", edge_0, "the level that becomes 0", within(0, 1));
    f.field("edge_1", edge_1, "the level that becomes 1", within(0, 1));
    f.require(edge_0 < edge_1, "edge_0", "must be less than edge_1");
  }
};

class Smoothstep final : public Spacing {
 public:
  struct Options {
    int64_t times = 1000;
    std::optional<Other> of;
    bool merge = false;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("times", times, "levels in the table of a continuous schedule", at_least(2));
      f.section("of", of, "apply the cubic to the levels of another spacing, not to the table");
      declare_merge(f, merge);
      declare_final(f, final_sigma);
    }
  };
  explicit Smoothstep(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, o_.times);
    std::vector<double> sigmas;
    if (o_.of) {
      const double hi = table.value(table.sigma(table.size() - 1));
      sigmas = o_.of->spacing->sigmas(schedule, steps);
      sigmas.pop_back();
      for (double& s : sigmas) s = table.of_value(hi * cubic((table.value(s) / hi - o_.of->edge_0) / (o_.of->edge_1 - o_.of->edge_0)));
    } else {
      for (int64_t i = 0; i < steps; ++i)
        sigmas.push_back(table.sigma(std::lround(double(table.size() - 1) * cubic(1 - double(i) / double(steps)))));
    }
    return merged_levels(with_final(std::move(sigmas), schedule, o_.final_sigma), o_.merge);
  }

 private:
  static double cubic(double u) {
    u = std::clamp(u, 0.0, 1.0);
    return u * u * (3 - 2 * u);
  }
  Options o_;
};

}  // namespace

void register_spacing_smoothstep(Registry& r) {
  r.add<Spacing, Smoothstep>("smoothstep", "the cubic smoothstep over the levels of the table, or of another spacing");
}

}  // namespace brume::plugins
