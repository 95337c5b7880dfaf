// The preconditioning of EDM (Karras et al. 2022, table 1): what the network sees and what it gives are of unit variance where the
// images have standard deviation sd.
//
//   x0 = sd^2 / (sigma^2 + sd^2) x + sigma sd / sqrt(sigma^2 + sd^2) F(x / sqrt(sigma^2 + sd^2))
//
// `prediction: v` turns the sign of F, as diffusers' EDM schedulers have it. The network receives log(sigma) / 4: the noise
// embedding's input quarter_log.
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

class Edm final : public Parameterization {
 public:
  enum class Prediction { eps, v };
  struct Options {
    double sigma_data = 0.5;
    Prediction prediction = Prediction::eps;
    void declare(Fields& f) {
      f.field("sigma_data", sigma_data, "standard deviation of the images", more_than(0));
      f.choice("prediction", prediction, "the sign of F: eps = EDM's own, v = turned (diffusers)",
               {{"eps", Prediction::eps}, {"v", Prediction::v}});
    }
  };
  explicit Edm(const Options& o) : sd_(o.sigma_data), sign_(o.prediction == Prediction::eps ? 1 : -1) {}
  double c_skip(double sigma) const override { return sd_ * sd_ / (sigma * sigma + sd_ * sd_); }
  double c_out(double sigma) const override { return sign_ * sigma * sd_ / std::hypot(sigma, sd_); }
  double c_in(double sigma, const NoiseSchedule&) const override { return 1 / std::hypot(sigma, sd_); }

 private:
  double sd_, sign_;
};

}  // namespace

void register_parameterization_edm(Registry& r) { r.add<Parameterization, Edm>("edm", "the preconditioning of EDM"); }

}  // namespace brume::plugins
