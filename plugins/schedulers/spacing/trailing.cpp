// Every (T / steps)-th training time, counted from the last, so that sampling starts at the end of training ("trailing" of Lin
// et al. 2024, table 2).
//
//   t_i = round(T - i d) - 1,  i = 0 ... steps-1,  d = T - (T - T / steps)
//
// d is T / steps but for its last digits, by which halves are rounded as diffusers rounds them (numpy's arange).
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Trailing final : public Spacing {
 public:
  struct Options {
    bool even = false;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.choice("halves", even, "the training times that lie between two become the odd one (diffusers), or the even one (A1111's Turbo)",
               {{"odd", false}, {"even", true}});
      declare_final(f, final_sigma);
    }
  };
  explicit Trailing(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const bool discrete = schedule.timesteps() > 0;
    const double range = discrete ? double(schedule.timesteps()) : schedule.t_max() - schedule.t_min();
    const double stride = range - (range - range / double(steps));
    std::vector<double> times;
    for (int64_t i = 0; i < steps; ++i) {
      const double t = range - double(i) * stride;
      const float counted = float(steps - i) * float(range / double(steps));  // in single precision, as PyTorch computes it there
      if (discrete)
        times.push_back(o_.even ? std::nearbyint(double(counted - 1)) : std::nearbyint(t) - 1);
      else
        times.push_back(schedule.t_min() + t);
    }
    return sigmas_at(schedule, times, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_trailing(Registry& r) { r.add<Spacing, Trailing>("trailing", "every k-th training time, counted from the last"); }

}  // namespace brume::plugins
