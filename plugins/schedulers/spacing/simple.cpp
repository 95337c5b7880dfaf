// Every (T / steps)-th level of the table, counted from the last and rounded towards it (the "simple" of ComfyUI and
// stable-diffusion.cpp). `trailing` rounds to the nearest.
//
//   sigma_i = level[T - 1 - floor(i r)],  r = T / steps,  i = 0 ... steps-1
//
// r is a floating-point number there, so that i r may be a little less than the whole number that it stands for: of 1000 levels with 38 or
// 76 steps in double precision, with 30 or 60 in single.
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Simple final : public Spacing {
 public:
  struct Options {
    int64_t times = 1000;
    bool single = false;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("times", times, "levels in the table of a continuous schedule", at_least(2));
      f.choice("precision", single, "of the places of the levels: double (ComfyUI) or single (stable-diffusion.cpp)",
               {{"double", false}, {"single", true}});
      declare_final(f, final_sigma);
    }
  };
  explicit Simple(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, o_.times);
    if (steps > table.size())
      throw ConfigError(fmt::format("{} are more than this spacing can take from {} training times", counted(steps, "step"), table.size()));
    const double ratio = double(table.size()) / double(steps);
    std::vector<double> sigmas;
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t place = o_.single ? int64_t(float(i) * float(ratio)) : int64_t(double(i) * ratio);
      sigmas.push_back(table.sigma(table.size() - 1 - place));
    }
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_simple(Registry& r) {
  r.add<Spacing, Simple>("simple", "every k-th level of the table, counted from the last (ComfyUI)");
}

}  // namespace brume::plugins
