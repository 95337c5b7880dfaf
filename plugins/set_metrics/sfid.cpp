// The Fréchet distance of spatial features (Nash et al. 2021, "Generating images with sparse representations", section 5.1). Of the
// extractor `inception` they are the first 7 channels of mixed_6/conv at 17x17 positions, as in ADM's evaluator (Dhariwal & Nichol 2021).
#include "brume/config/registry.h"
#include "brume/core/set_metric.h"
#include "brume/numerics/frechet.h"

namespace brume::plugins {
namespace {

class Sfid final : public SetMetric {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Sfid(const Options&) {}
  Needs needs() const override { return {.spatial = true}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary& real) const override {
    return {{"sfid", frechet_distance(set.spatial, real.spatial)}};
  }
};

}  // namespace

void register_set_metric_sfid(Registry& r) { r.add<SetMetric, Sfid>("sfid", "the Fréchet distance of the spatial features"); }

}  // namespace brume::plugins
