// The kernel distance of two sets of features, which with Inception's is KID (Binkowski et al. 2018, "Demystifying MMD GANs", section 4):
// the unbiased estimate of the squared maximum mean discrepancy with a polynomial kernel.
//
//   k(x, y) = (gamma <x, y> + coef0)^degree
//
// `kid` is the mean over random subsets and `kid_std` their standard deviation; without subsets, the estimate from all images and its
// standard error.
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/set_metric.h"
#include "brume/core/warnings.h"
#include "brume/numerics/mean_discrepancy.h"

namespace brume::plugins {
namespace {

class Kid final : public SetMetric {
 public:
  struct Options {
    int64_t subsets = 100, subset_size = 1000, seed = 2020;
    PolynomialKernel kernel;
    void declare(Fields& f) {
      f.field("subsets", subsets, "number of random subsets; 0 = the estimate from all images", at_least(0));
      f.field("subset_size", subset_size, "images in a subset, of each set; all of the smaller set if it has fewer", at_least(2));
      f.field("seed", seed, "of the subsets", at_least(0));
      f.field("degree", kernel.degree, "degree of the kernel", at_least(1));
      f.field("gamma", kernel.gamma, "scale of the scalar product; 0 = 1 / number of features", at_least(0));
      f.field("coef0", kernel.coef0, "what is added to the scalar product");
    }
  };
  explicit Kid(const Options& o) : o_(o) {}
  Needs needs() const override { return {.rows = true}; }
  std::vector<Figure> score(const FeatureSummary& set, const FeatureSummary& real) const override {
    const Tensor &x = set.rows, &y = real.rows;
    const int64_t fewest = std::min(x.size(0), y.size(0));
    if (fewest < 2) throw ConfigError(fmt::format("kid: {} and {} need 2 images at least", set.name, real.name));
    if (o_.subsets == 0) {
      const SquaredMmd d = squared_mmd(x, y, o_.kernel);
      return {{"kid", d.unbiased}, {"kid_standard_error", d.standard_error}};
    }
    if (fewest < o_.subset_size)
      warn(
          fmt::format("kid: each subset has all {} of the smaller set, which are fewer than subset_size = {}: kid_std says little; "
                      "subsets: 0 estimates from all images, with a standard error",
                      counted(fewest, "image"), o_.subset_size));
    const auto subsets = draw_subsets(o_.subsets, std::min(o_.subset_size, fewest), x.size(0), y.size(0), uint64_t(o_.seed));
    const SubsetMmd d = squared_mmd_of_subsets(x, y, subsets, o_.kernel);
    return {{"kid", d.mean}, {"kid_std", d.std}};
  }

 private:
  Options o_;
};

}  // namespace

void register_set_metric_kid(Registry& r) {
  r.add<SetMetric, Kid>("kid", "the kernel distance (polynomial) of the features, KID with Inception's");
}

}  // namespace brume::plugins
