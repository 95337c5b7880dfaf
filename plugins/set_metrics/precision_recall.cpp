// Improved precision and recall (Kynkäänniemi et al. 2019, "Improved precision and recall metric for assessing generative models", eq. 1
// and 2): the share of samples within a ball around a real image, and the share of real images within a ball around a sample. A ball
// reaches to the k-th nearest neighbour in its own set.
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/set_metric.h"
#include "brume/numerics/manifold.h"

namespace brume::plugins {
namespace {

class PrecisionRecall final : public SetMetric {
 public:
  struct Options {
    int64_t k = 3;
    void declare(Fields& f) { f.field("k", k, "the nearest neighbour that ends a ball, without the image itself", at_least(1)); }
  };
  explicit PrecisionRecall(const Options& o) : o_(o) {}
  Needs needs() const override { return {.rows = true}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary& real) const override {
    for (const FeatureSummary* s : {&set, &real})
      if (s->rows.size(0) <= o_.k)
        throw ConfigError(
            fmt::format("precision_recall: {} has {}, and k = {} needs {}", s->name, counted(s->rows.size(0), "image"), o_.k, o_.k + 1));
    const ManifoldScores s = manifold_scores(real.rows, set.rows, o_.k);
    return {{"precision", s.precision}, {"recall", s.recall}};
  }

 private:
  Options o_;
};

}  // namespace

void register_set_metric_precision_recall(Registry& r) {
  r.add<SetMetric, PrecisionRecall>("precision_recall", "the share of samples near a real image, and of real images near a sample");
}

}  // namespace brume::plugins
