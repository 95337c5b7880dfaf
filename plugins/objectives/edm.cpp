// The objective of EDM (Karras et al. 2022, eq. 8 and table 1): log-normal noise, and the error of D weighted so that under EDM's own
// preconditioning every level begins with the same loss.
//
//   log sigma ~ N(-1.2, 1.2^2),   loss = mean (sigma^2 + sd^2) / (sigma sd)^2 (D - x0)^2
#include "brume/config/registry.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

struct Edm {
  TargetError error{.target = Target::image};
  std::shared_ptr<const TimeSampler> time;
  void declare(Fields& f) {
    error.declare(f, "edm");
    f.field("time", time, "distribution of the noise levels", "log_normal");
  }
};

}  // namespace

void register_objective_edm(Registry& r) {
  r.add<Objective, DenoisingObjective<Edm>>("edm", "log-normal sigma, EDM's weight on the error of the image");
}

}  // namespace brume::plugins
