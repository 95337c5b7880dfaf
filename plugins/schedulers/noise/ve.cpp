// The variance-exploding process (Song et al. 2021b, sec. 3.4 and app. C): the image stays, noise grows geometrically.
//
//   sigma(t) = sigma_min (sigma_max / sigma_min)^t,  t in [0, 1]
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/noise_schedule.h"

namespace brume::plugins {
namespace {

class Ve final : public NoiseSchedule {
 public:
  struct Options {
    double sigma_min = 0.01, sigma_max = 50;
    void declare(Fields& f) {
      f.field("sigma_min", sigma_min, "sigma at t = 0", more_than(0));
      f.field("sigma_max", sigma_max, "sigma at t = 1", more_than(0));
      f.require(sigma_min < sigma_max, "sigma_min", "must be less than sigma_max");
    }
  };
  explicit Ve(const Options& o) : lo_(std::log(o.sigma_min)), hi_(std::log(o.sigma_max)) {}

  double sigma(double t) const override { return std::exp(lo_ + std::clamp(t, 0.0, 1.0) * (hi_ - lo_)); }
  double time(double sigma) const override { return std::clamp((std::log(sigma) - lo_) / (hi_ - lo_), 0.0, 1.0); }
  double t_min() const override { return 0; }
  double t_max() const override { return 1; }
  double signal(double) const override { return 1; }
  double start_std(double sigma) const override { return sigma; }

 private:
  double lo_, hi_;
};

}  // namespace

void register_noise_ve(Registry& r) { r.add<NoiseSchedule, Ve>("ve", "variance exploding, continuous (score SDE)"); }

}  // namespace brume::plugins
