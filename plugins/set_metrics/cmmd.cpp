// CMMD (Jayasumana et al. 2024, "Rethinking FID: towards a better evaluation metric for image generation", section 4): 1000 times the
// biased estimate of the squared maximum mean discrepancy with a Gaussian kernel, of features of unit length; the paper takes CLIP's.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include "brume/config/registry.h"
#include "brume/core/set_metric.h"
#include "brume/numerics/mean_discrepancy.h"

namespace brume::plugins {
namespace {

class Cmmd final : public SetMetric {
 public:
  struct Options {
    GaussianKernel kernel;
    bool normalize = true;
    void declare(Fields& f) {
      f.field("sigma", kernel.sigma, "width of the kernel", more_than(0));
      f.field("normalize", normalize, "whether features are scaled to unit length first");
    }
  };
  explicit Cmmd(const Options& o) : o_(o) {}
  Needs needs() const override { return {.rows = true}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary& real) const override {
    for (const FeatureSummary* s : {&set, &real})
      if (s->rows.size(0) < 2) throw ConfigError(fmt::format("cmmd: {} needs 2 images at least", s->name));
    return {{"cmmd", 1000 * squared_mmd(scaled(set.rows), scaled(real.rows), o_.kernel).biased}};
  }

 private:
  Tensor scaled(const Tensor& rows) const {
    if (!o_.normalize) return rows;
    const Tensor x = rows.to(at::kDouble);
    return x / x.square().sum(1, true).sqrt().clamp_min(1e-300);
  }
  Options o_;
};

}  // namespace

void register_set_metric_cmmd(Registry& r) {
  r.add<SetMetric, Cmmd>("cmmd", "the kernel distance (Gaussian) of features of unit length, CMMD with CLIP's");
}

}  // namespace brume::plugins
