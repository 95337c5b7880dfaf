// Every (T div steps)-th level from the second on (ComfyUI's ddim_uniform).
//
//   level[1], level[1 + k], ... below level[T],  k = max(T div steps, 1)
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class DdimUniform final : public Spacing {
 public:
  struct Options {
    int64_t times = 1000;
    bool fill = false;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("times", times, "levels in the table of a continuous schedule", at_least(2));
      f.field("fill", fill,
              "go up to the last level that the stride reaches, in more steps than asked for if their number does not divide the levels "
              "(ComfyUI)");
      declare_final(f, final_sigma);
    }
  };
  explicit DdimUniform(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, o_.times);
    constexpr double nothing = 1e-5;  // a second level that is as good as 0 is the end of the run, and the stride that of one step more
    const bool ends = table.value(table.sigma(1)) <= nothing;
    const int64_t stride = std::max<int64_t>(table.size() / (steps + ends), 1);
    if (steps >= table.size())
      throw ConfigError(fmt::format("{} are more than this spacing can take from {} training times", counted(steps, "step"), table.size()));
    std::vector<double> sigmas;
    for (int64_t i = 1; i < table.size(); i += stride)
      if ((i > 1 || !ends) && (o_.fill || int64_t(sigmas.size()) < steps)) sigmas.insert(sigmas.begin(), table.sigma(i));
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_ddim_uniform(Registry& r) {
  r.add<Spacing, DdimUniform>("ddim_uniform", "every k-th level of the table from the second on (ComfyUI)");
}

}  // namespace brume::plugins
