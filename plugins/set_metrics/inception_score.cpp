// The Inception score (Salimans et al. 2016, "Improved techniques for training GANs", section 4), from the extractor's logits.
//
//   exp(mean_i KL(p(y|x_i) || p(y)))      in each split; mean and standard deviation over the splits
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/set_metric.h"
#include "brume/numerics/inception_score.h"

namespace brume::plugins {
namespace {

class InceptionScoreMetric final : public SetMetric {
 public:
  struct Options {
    int64_t splits = 10, split_size = 0;
    void declare(Fields& f) {
      f.field("splits", splits, "splits of nearly the same size, in the order of the images", at_least(1));
      f.field("split_size", split_size, "images per split, instead of `splits`: 5000 in ADM's evaluator; 0 = by `splits`", at_least(0));
    }
  };
  explicit InceptionScoreMetric(const Options& o) : o_(o) {}
  Needs needs() const override { return {.logits = true, .real = false}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary&) const override {
    const int64_t rows = set.logits.size(0);
    if (o_.split_size == 0 && rows < o_.splits)
      throw ConfigError(fmt::format("inception_score: {} has {} for {} splits", set.name, counted(rows, "image"), o_.splits));
    const InceptionScore s =
        inception_score(set.logits, o_.split_size > 0 ? splits_of_size(rows, o_.split_size) : equal_splits(rows, o_.splits));
    return {{"inception_score", s.mean}, {"inception_score_std", s.std}};
  }

 private:
  Options o_;
};

}  // namespace

void register_set_metric_inception_score(Registry& r) {
  r.add<SetMetric, InceptionScoreMetric>("inception_score", "how sure and how varied the verdicts of the extractor are");
}

}  // namespace brume::plugins
