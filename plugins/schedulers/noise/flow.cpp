// Flow matching and rectified flow (Lipman et al. 2023; Liu et al. 2023): a straight line from the image to noise. The network's
// frame is (1 - s) x0 + s noise, with s = sigma / (1 + sigma), and the network receives 1000 s; or, with `timestep: image`, 1000 (1 - s):
// the time of those for whom it goes from noise to image (SiT, Ma et al. 2024).
//
//   s(t) = shift t / (1 + (shift - 1) t),  t in [t_min, 1]     (resolution shift: Esser et al. 2024, eq. 23)
//
// At s = 1 sigma is infinite; it is capped at 1e6.
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/noise_schedule.h"

namespace brume::plugins {
namespace {

class Flow final : public NoiseSchedule {
 public:
  struct Options {
    double shift = 1, t_min = 1e-3, timestep_scale = 1000;
    bool of_image = false;
    void declare(Fields& f) {
      f.field("shift", shift, "above 1: more of training and sampling at high noise", more_than(0));
      f.field("t_min", t_min, "the first time", within(1e-6, 0.5));
      f.renamed("told_scale", "timestep_scale");
      f.field("timestep_scale", timestep_scale, "timestep given to the network, over s", more_than(0));
      f.choice("timestep", of_image, "the network receives the share of the noise, s, or that of the image, 1 - s (SiT)",
               {{"noise", false}, {"image", true}});
    }
  };
  explicit Flow(const Options& o) : o_(o) {}

  double sigma(double t) const override {
    t = std::clamp(t, 0.0, 1.0);
    return std::min(o_.shift * t / std::max(1 - t, 1e-300), 1e6);  // s / (1 - s)
  }
  double time(double sigma) const override { return sigma >= 1e6 ? 1 : std::clamp(sigma / (o_.shift + sigma), o_.t_min, 1.0); }
  double t_min() const override { return o_.t_min; }
  double t_max() const override { return 1; }
  double timestep(double sigma) const override {
    const double s = sigma >= 1e6 ? 1 : sigma / (1 + sigma);
    return o_.timestep_scale * (o_.of_image ? 1 - s : s);
  }
  double signal(double sigma) const override { return 1 / (1 + sigma); }
  double start_std(double sigma) const override { return 1 + sigma; }

 private:
  Options o_;
};

}  // namespace

void register_noise_flow(Registry& r) { r.add<NoiseSchedule, Flow>("flow", "flow matching, with a resolution shift"); }

}  // namespace brume::plugins
