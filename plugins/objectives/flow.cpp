// Flow matching (Lipman et al. 2023; Liu et al. 2023; Esser et al. 2024, eq. 5): the error of the velocity of the straight path from
// image to noise, whatever the network itself predicts.
//
//   x_t = (1 - t) x0 + t n,   sigma = t / (1 - t),   v = n - x0,   loss = mean |v_theta - v|^2
//
// `time: logit_normal` is Stable Diffusion 3's choice of t.
#include "brume/config/registry.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

struct Flow {
  TargetError error{.target = Target::flow};
  std::shared_ptr<const TimeSampler> time;
  void declare(Fields& f) {
    error.declare(f);
    f.field("time", time, "distribution of the noise levels", "uniform");
  }
};

}  // namespace

void register_objective_flow(Registry& r) {
  r.add<Objective, DenoisingObjective<Flow>>("flow", "the error of the velocity noise - x0 (flow matching)");
}

}  // namespace brume::plugins
