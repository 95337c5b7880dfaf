// Every (T / steps)-th training time, counted from the first ("leading" of Lin et al. 2024, table 2; the spacing of DDIM and
// Stable Diffusion).
//
//   t_i = i (T div steps) + offset,  i = steps-1 ... 0
//
// `fill`: i begins at the largest with t_i < T, which is more than steps-1 if steps does not divide T (CompVis' latent diffusion).
#include <cmath>
#include <optional>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Leading final : public Spacing {
 public:
  struct Options {
    int64_t offset = 0;
    bool inclusive = true, fill = false;
    FinalSigma final_sigma = FinalSigma::zero;
    std::optional<double> sigma_max;
    void declare(Fields& f) {
      f.field("offset", offset, "added to every time (Stable Diffusion: 1); discrete schedules only", at_least(0));
      f.field("fill", fill,
              "go up to the last training time that the stride reaches, in more steps than asked for if their number does not divide the "
              "training times (CompVis); discrete schedules only");
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
      declare_clip(f, sigma_max);
    }
  };
  explicit Leading(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const bool discrete = schedule.timesteps() > 0;
    const int64_t levels = steps + !o_.inclusive, first = o_.inclusive ? 0 : 1;
    const double last = clipped_time(schedule, o_.sigma_max);
    const double stride = discrete ? std::floor((last + 1) / double(levels)) : (last - schedule.t_min()) / double(levels);
    std::vector<double> times;
    if (o_.fill && discrete && stride > 0)
      for (double t = double(levels) * stride; t + double(o_.offset) <= last; t += stride)
        times.insert(times.begin(), t + double(o_.offset));
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
