// The weighting of EDM (Karras et al. 2022, table 1): 1 on the error of F under EDM's preconditioning.
//
//   w = (sigma^2 + sd^2) / (sigma sd)^2 on the error of x0
#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class Edm final : public Weighting {
 public:
  struct Options {
    double sigma_data = 0.5;
    void declare(Fields& f) { f.field("sigma_data", sigma_data, "standard deviation of the images", more_than(0)); }
  };
  explicit Edm(const Options& o) : variance_(o.sigma_data * o.sigma_data) {}
  double weight(double sigma, Target target) const override { return (sigma * sigma + variance_) / variance_ * noise_units(sigma, target); }

 private:
  double variance_;
};

}  // namespace

void register_weighting_edm(Registry& r) {
  r.add<Weighting, Edm>("edm", "(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on the error of x0");
}

}  // namespace brume::plugins
