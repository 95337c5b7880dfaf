// CosMap (Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", sec. 3.1): the density with which
// the cosine schedule takes the times of a flow, as diffusers' scripts for Stable Diffusion 3 and FLUX weight the error of the velocity.
//
//   w = 2 / (pi (1 - 2 t + 2 t^2)) on the error of the flow's velocity,   t = sigma / (1 + sigma)
#include <numbers>

#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class CosMap final : public Weighting {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit CosMap(const Options&) {}
  double weight(double sigma, Target target) const override {
    const double density = 2 * (1 + sigma) * (1 + sigma) / (std::numbers::pi * (1 + sigma * sigma));
    return density * noise_units(sigma, target) / noise_units(sigma, Target::flow);
  }
};

}  // namespace

void register_weighting_cosmap(Registry& r) {
  r.add<Weighting, CosMap>("cosmap", "the middle of a flow's time up to twice as much as its ends (diffusers' cosmap)");
}

}  // namespace brume::plugins
