// FD-DINOv2 (Stein et al. 2023, "Exposing flaws of generative model evaluation metrics and their unfair treatment of diffusion models"):
// the Fréchet distance of fid.cpp, of the features of DINOv2. The published figures are of ViT-L/14.
#include "brume/config/registry.h"
#include "brume/core/set_metric.h"
#include "brume/numerics/frechet.h"

namespace brume::plugins {
namespace {

class FdDinov2 final : public SetMetric {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit FdDinov2(const Options&) {}
  Needs needs() const override { return {.statistics = true, .frechet_name = "fd_dinov2"}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary& real) const override {
    return {{"fd_dinov2", frechet_distance(set.statistics, real.statistics)}};
  }
};

}  // namespace

void register_set_metric_fd_dinov2(Registry& r) {
  r.add<SetMetric, FdDinov2>("fd_dinov2", "the Fréchet distance of the features of dinov2");
}

}  // namespace brume::plugins
