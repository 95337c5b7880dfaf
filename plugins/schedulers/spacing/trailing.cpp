// Every (T / steps)-th training time, counted from the last, so that sampling starts at the end of training ("trailing" of Lin
// et al. 2024, table 2).
//
//   t_i = round(T - i T / steps) - 1,  i = 0 ... steps-1
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Trailing final : public Spacing {
 public:
  struct Options {
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) { declare_final(f, final_sigma); }
  };
  explicit Trailing(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const bool discrete = schedule.timesteps() > 0;
    const double range = discrete ? double(schedule.timesteps()) : schedule.t_max() - schedule.t_min();
    std::vector<double> times;
    for (int64_t i = 0; i < steps; ++i) {
      const double t = range - double(i) * range / double(steps);
      times.push_back(discrete ? std::nearbyint(t) - 1 : schedule.t_min() + t);
    }
    return sigmas_at(schedule, times, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_trailing(Registry& r) { r.add<Spacing, Trailing>("trailing", "every k-th training time, counted from the last"); }

}  // namespace brume::plugins
