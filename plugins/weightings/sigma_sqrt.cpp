// The weighting `sigma_sqrt` of diffusers' scripts for Stable Diffusion 3 and FLUX: each time of a flow counts by 1 / t^2.
//
//   w = 1 / t^2 on the error of the flow's velocity,   t = sigma / (1 + sigma)
#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class SigmaSqrt final : public Weighting {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit SigmaSqrt(const Options&) {}
  double weight(double sigma, Target target) const override {
    const double root = (1 + sigma) / sigma;
    return root * root * noise_units(sigma, target) / noise_units(sigma, Target::flow);
  }
};

}  // namespace

void register_weighting_sigma_sqrt(Registry& r) {
  r.add<Weighting, SigmaSqrt>("sigma_sqrt", "1 / t^2 on the error of the flow's velocity: low noise counts most (diffusers' sigma_sqrt)");
}

}  // namespace brume::plugins
