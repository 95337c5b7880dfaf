// The noise levels of EDM (Karras et al. 2022): x = x0 + sigma noise as it is, with no scaling; training time runs evenly along the
// steps of sampling (eq. 5). Networks receive log(sigma) / 4 (parameterization: edm).
//
//   sigma(t) = (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho,  t in [0, 1]
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/noise_schedule.h"

namespace brume::plugins {
namespace {

class Edm final : public NoiseSchedule {
 public:
  struct Options {
    double sigma_min = 0.002, sigma_max = 80, rho = 7, start_image_std = 0;
    void declare(Fields& f) {
      f.field("sigma_min", sigma_min, "sigma at t = 0", more_than(0));
      f.field("sigma_max", sigma_max, "sigma at t = 1", more_than(0));
      f.field("rho", rho, "curvature", at_least(1));
      f.field("start_image_std", start_image_std,
              "a run starts from noise of variance sigma^2 + start_image_std^2: 0 = EDM, 1 = its schedulers in diffusers", at_least(0));
      f.require(sigma_min < sigma_max, "sigma_min", "must be less than sigma_max");
    }
  };
  explicit Edm(const Options& o)
      : rho_(o.rho), lo_(std::pow(o.sigma_min, 1 / o.rho)), hi_(std::pow(o.sigma_max, 1 / o.rho)), image_std_(o.start_image_std) {}

  double sigma(double t) const override { return std::pow(lo_ + std::clamp(t, 0.0, 1.0) * (hi_ - lo_), rho_); }
  double time(double sigma) const override { return std::clamp((std::pow(sigma, 1 / rho_) - lo_) / (hi_ - lo_), 0.0, 1.0); }
  double t_min() const override { return 0; }
  double t_max() const override { return 1; }
  double signal(double) const override { return 1; }
  double start_std(double sigma) const override { return std::hypot(sigma, image_std_); }

 private:
  double rho_, lo_, hi_, image_std_;
};

}  // namespace

void register_noise_edm(Registry& r) { r.add<NoiseSchedule, Edm>("edm", "the noise levels of EDM"); }

}  // namespace brume::plugins
