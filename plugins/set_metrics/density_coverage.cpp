// Density and coverage (Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models", eq. 5 and 6): in how many
// balls around real images a sample lies, divided by k, and the share of the balls with a sample. A ball reaches to the k-th nearest
// neighbour among the real images.
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/set_metric.h"
#include "brume/numerics/manifold.h"

namespace brume::plugins {
namespace {

class DensityCoverage final : public SetMetric {
 public:
  struct Options {
    int64_t k = 5;
    void declare(Fields& f) { f.field("k", k, "the nearest neighbour that ends a ball, without the image itself", at_least(1)); }
  };
  explicit DensityCoverage(const Options& o) : o_(o) {}
  Needs needs() const override { return {.rows = true}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary& real) const override {
    for (const FeatureSummary* s : {&set, &real})
      if (s->rows.size(0) <= o_.k)
        throw ConfigError(
            fmt::format("density_coverage: {} has {}, and k = {} needs {}", s->name, counted(s->rows.size(0), "image"), o_.k, o_.k + 1));
    const ManifoldScores s = manifold_scores(real.rows, set.rows, o_.k);
    return {{"density", s.density}, {"coverage", s.coverage}};
  }

 private:
  Options o_;
};

}  // namespace

void register_set_metric_density_coverage(Registry& r) {
  r.add<SetMetric, DensityCoverage>("density_coverage", "how densely samples lie around real images, and how many of these are covered");
}

}  // namespace brume::plugins
