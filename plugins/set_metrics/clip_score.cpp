// CLIPScore (Hessel et al. 2021, "CLIPScore: a reference-free evaluation metric for image captioning", eq. 1): how near images are to their
// captions in CLIP's space, with the factor 100 of text-to-image papers (the paper's own is 2.5).
//
//   mean_i weight max(cos(image_i, caption_i), 0)
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/set_metric.h"

namespace brume::plugins {
namespace {

class ClipScore final : public SetMetric {
 public:
  struct Options {
    double weight = 100;
    void declare(Fields& f) { f.field("weight", weight, "factor of the cosine: 100, or 2.5 as in the paper", more_than(0)); }
  };
  explicit ClipScore(const Options& o) : o_(o) {}
  Needs needs() const override { return {.rows = true, .real = false, .captions = true}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary&) const override {
    const Tensor x = set.rows.to(at::kDouble), y = set.captions.to(at::kDouble);
    const Tensor scores = ((x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).clamp_min(1e-300).sqrt()).clamp_min(0) * o_.weight;
    const Tensor mean = scores.mean();
    const double n = double(scores.numel());
    return {{"clip_score", mean.item<double>()},
            {"clip_score_standard_error", std::sqrt((scores - mean).square().sum().item<double>() / (n - 1) / n)}};
  }

 private:
  Options o_;
};

}  // namespace

void register_set_metric_clip_score(Registry& r) {
  r.add<SetMetric, ClipScore>("clip_score", "how near images are to their captions, by features clip_image");
}

}  // namespace brume::plugins
