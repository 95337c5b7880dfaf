// Every (T / steps)-th training time, counted from the first ("leading" of Lin et al. 2024, table 2; the spacing of DDIM and
// Stable Diffusion).
//
//   t_i = i (T div steps) + offset,  i = steps-1 ... 0
#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Leading final : public Spacing {
 public:
  struct Options {
    int64_t offset = 0;
    bool inclusive = true;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("offset", offset, "added to every time (Stable Diffusion: 1); discrete schedules only", at_least(0));
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
    }
  };
  explicit Leading(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const bool discrete = schedule.timesteps() > 0;
    const int64_t levels = steps + !o_.inclusive, first = o_.inclusive ? 0 : 1;
    const double stride = discrete ? double(schedule.timesteps() / levels) : (schedule.t_max() - schedule.t_min()) / double(levels);
    std::vector<double> times;
    for (int64_t i = levels - 1; i >= first; --i)
      times.push_back(schedule.t_min() + double(i) * stride + (discrete ? double(o_.offset) : 0));
    return sigmas_at(schedule, times, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_leading(Registry& r) {
  r.add<Spacing, Leading>("leading", "every k-th training time, counted from the first (DDIM)");
}

}  // namespace brume::plugins
