// The steps as a list: training times (as in diffusers' `timesteps`, or the space_timesteps of improved-diffusion) or sigmas.
#include <fmt/format.h>

#include <optional>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Explicit final : public Spacing {
 public:
  struct Options {
    std::vector<double> times = {}, sigmas = {};
    bool interpolate = false;
    std::optional<double> end;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("times", times, "training times, descending", at_least(0));
      f.field("sigmas", sigmas, "sigmas, descending, without the final one", more_than(0));
      f.field("interpolate", interpolate, "resample the list to the number of steps, linearly in log sigma (\"align your steps\")");
      declare_final(f, final_sigma);
      f.field("end", end, "sigma at which the run ends; null = as final says", at_least(0));
      f.unused(end.has_value(), "final", "end says where the run ends");
      f.require(times.empty() || sigmas.empty(), "sigmas", "give times or sigmas, not both");
      f.require(descending(times), "times", "must descend");
      f.require(descending(sigmas), "sigmas", "must descend");
    }
    static bool descending(const std::vector<double>& v) {
      for (size_t i = 1; i < v.size(); ++i)
        if (!(v[i] < v[i - 1])) return false;
      return true;
    }
  };
  explicit Explicit(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const size_t given = o_.sigmas.empty() ? o_.times.size() : o_.sigmas.size();
    if (given != size_t(steps) && !(o_.interpolate && given > 1))
      throw ConfigError(
          fmt::format("the list has {} and steps is {}; they must agree, or interpolate be true", counted(given, "entry"), steps));
    require_within(schedule, o_.sigmas);
    std::vector<double> levels = o_.sigmas;
    if (levels.empty()) {
      levels = sigmas_at(schedule, o_.times, o_.final_sigma);
      levels.pop_back();
    }
    if (given != size_t(steps)) levels = log_interpolated(levels, steps);
    levels = with_final(std::move(levels), schedule, o_.final_sigma);
    if (!o_.end) return levels;
    levels.back() = *o_.end;
    if (*o_.end > levels[levels.size() - 2])
      throw ConfigError(fmt::format("end {} is above the last level {}", levels.back(), levels[levels.size() - 2]));
    return levels;
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_explicit(Registry& r) { r.add<Spacing, Explicit>("explicit", "a list of training times or of sigmas"); }

}  // namespace brume::plugins
