// The Fréchet distance of two sets of features, each taken as a Gaussian (Dowson & Landau 1982); of Inception's features it is the FID
// (Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6).
//
//   |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2))
#include "brume/config/registry.h"
#include "brume/core/set_metric.h"
#include "brume/numerics/frechet.h"

namespace brume::plugins {
namespace {

class Fid final : public SetMetric {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Fid(const Options&) {}
  Needs needs() const override { return {.statistics = true}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary& real) const override {
    return {{"fid", frechet_distance(set.statistics, real.statistics)}};
  }
};

}  // namespace

void register_set_metric_fid(Registry& r) { r.add<SetMetric, Fid>("fid", "the Fréchet distance of the features, FID with Inception's"); }

}  // namespace brume::plugins
