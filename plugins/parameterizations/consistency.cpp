// The parameterization of consistency models (Song et al. 2023, eq. 5 and app. C): D(x, sigma_min) = x whatever the network gives.
//
//   x0 = sd^2 / ((sigma - sigma_min)^2 + sd^2) x + sd (sigma - sigma_min) / sqrt(sigma^2 + sd^2) F(x / sqrt(sigma^2 + sd^2))
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

class Consistency final : public Parameterization {
 public:
  struct Options {
    double sigma_data = 0.5, sigma_min = 0.002;
    void declare(Fields& f) {
      f.field("sigma_data", sigma_data, "standard deviation of the images", more_than(0));
      f.field("sigma_min", sigma_min, "sigma at which the model is the identity: the schedule's smallest", at_least(0));
    }
  };
  explicit Consistency(const Options& o) : sd_(o.sigma_data), least_(o.sigma_min) {}
  double c_skip(double sigma) const override { return sd_ * sd_ / ((sigma - least_) * (sigma - least_) + sd_ * sd_); }
  double c_out(double sigma) const override { return sd_ * (sigma - least_) / std::hypot(sigma, sd_); }
  double c_in(double sigma, const NoiseSchedule&) const override { return 1 / std::hypot(sigma, sd_); }

 private:
  double sd_, least_;
};

}  // namespace

void register_parameterization_consistency(Registry& r) {
  r.add<Parameterization, Consistency>("consistency", "consistency models: the identity at sigma_min");
}

}  // namespace brume::plugins
