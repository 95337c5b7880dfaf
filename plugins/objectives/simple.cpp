// The simplified objective (Ho et al. 2020, eq. 14; Salimans & Ho 2022 for v and x0): draw a time, add noise, and measure the error of
// the noise, of the image or of v, whatever the network itself predicts. `target: v` is the v-loss.
//
//   x = x0 + sigma n,   D = c_skip x + c_out F,   loss = mean w(sigma) rho(k (D - x0))
//
// where k turns an error of x0 into one of the target: -1 / sigma for the noise, -sqrt(1 + sigma^2) / sigma for v.
#include "brume/config/registry.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

struct Simple {
  TargetError error;
  std::shared_ptr<const TimeSampler> time;
  void declare(Fields& f) {
    error.declare_target(f);
    error.declare(f);
    f.field("time", time, "distribution of the noise levels", "uniform");
  }
};

}  // namespace

void register_objective_simple(Registry& r) {
  r.add<Objective, DenoisingObjective<Simple>>("simple", "the weighted error of noise, image or v");
}

}  // namespace brume::plugins
