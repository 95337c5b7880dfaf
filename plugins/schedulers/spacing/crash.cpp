// The "crash" schedule of v-diffusion: steps that gather at low noise. diffusers' IPNDM has it.
//
//   share(u) = 2/pi arcsin(sin(pi u / 2)^2),   u = 1, ..., 1/n
//   angle = angle_min + share (angle_max - angle_min),   sigma = tan(angle)
//
// between the angles of the schedule's ends; v-diffusion's own, which end at 0 and pi/2, leave share(u) pi/2.
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Crash final : public Spacing {
 public:
  struct Options {
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) { declare_final(f, final_sigma); }
  };
  explicit Crash(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const double hi = std::atan(schedule.sigma(schedule.t_max())), lo = std::atan(schedule.sigma(schedule.t_min()));
    std::vector<double> sigmas{schedule.sigma(schedule.t_max())};
    for (int64_t i = 1; i < steps; ++i) {
      const double sine = std::sin(M_PI / 2 * (1 - double(i) / double(steps))), share = 2 / M_PI * std::asin(sine * sine);
      sigmas.push_back(std::tan(lo + share * (hi - lo)));
    }
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_crash(Registry& r) {
  r.add<Spacing, Crash>("crash", "angles whose sines are squares, most of them at little noise (v-diffusion)");
}

}  // namespace brume::plugins
