// What every set metric keeps: its figures have names, are finite, and depend on nothing but the sets.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <cmath>
#include <stdexcept>

#include "brume/core/set_metric.h"
#include "brume/numerics/frechet.h"
#include "support/registry.h"

namespace brume::test {
namespace {

Tensor normal(at::IntArrayRef shape, uint64_t seed) { return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions()); }

FeatureSummary summary(int64_t images, uint64_t seed, double noise = 0) {
  const Tensor rows = normal({images, 6}, seed) + normal({images, 6}, seed + 100) * noise, spatial = normal({images, 5}, seed + 1);
  return {"a set", images, feature_statistics(rows), feature_statistics(spatial), rows, normal({images, 7}, seed + 2)};
}

class SetMetricContract : public testing::TestWithParam<Specimen> {
 protected:
  std::shared_ptr<const SetMetric> metric_ = make<SetMetric>(GetParam().yaml);
};

TEST_P(SetMetricContract, FiguresAreNamedAndFinite) {
  const auto figures = metric_->score(summary(40, 1), summary(50, 11)), others = metric_->score(summary(30, 2), summary(20, 12));
  ASSERT_FALSE(figures.empty());
  ASSERT_EQ(figures.size(), others.size());
  for (size_t i = 0; i < figures.size(); ++i) {
    EXPECT_FALSE(figures[i].name.empty());
    EXPECT_EQ(figures[i].name, others[i].name);
    EXPECT_TRUE(std::isfinite(figures[i].value)) << figures[i].name;
  }
}

TEST_P(SetMetricContract, ReadsOnlyWhatItNeeds) {
  const SetMetric::Needs needs = metric_->needs();
  const auto only = [&](FeatureSummary s) {
    if (!needs.statistics) s.statistics = {};
    if (!needs.spatial) s.spatial = {};
    if (!needs.rows) s.rows = Tensor();
    if (!needs.logits) s.logits = Tensor();
    return s;
  };
  const auto all = metric_->score(summary(40, 1), summary(50, 11));
  const auto some = metric_->score(only(summary(40, 1)), needs.real ? only(summary(50, 11)) : FeatureSummary());
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].value, some[i].value) << all[i].name;
}

INSTANTIATE_TEST_SUITE_P(Registry, SetMetricContract, testing::ValuesIn(specimens("set_metric")), readable);

TEST(SetMetrics, TooFewImagesAreAnError) {
  const auto error = [](const std::string& yaml, int64_t images) {
    return error_of([&] { make<SetMetric>(yaml)->score(summary(images, 1), summary(50, 2)); });
  };
  EXPECT_EQ(error("precision_recall", 3), "precision_recall: a set has 3 images, and k = 3 needs 4");
  EXPECT_EQ(error("density_coverage", 5), "density_coverage: a set has 5 images, and k = 5 needs 6");
  EXPECT_EQ(error("inception_score", 9), "inception_score: a set has 9 images for 10 splits");
  EXPECT_EQ(error("precision_recall", 4), "no error");
}

TEST(SetMetrics, ASetIsNearestToItselfAndNoiseMovesItAway) {
  const auto figure = [](const std::string& yaml, double noise, const std::string& name) {
    const FeatureSummary real = summary(300, 1);
    for (const SetMetric::Figure& f : make<SetMetric>(yaml)->score(summary(300, 1, noise), real))
      if (f.name == name) return f.value;
    throw std::logic_error("no figure " + name);
  };
  for (const std::string name : {"fid", "cmmd"}) {
    double before = figure(name, 0, name);
    EXPECT_NEAR(before, 0, 1e-9) << name;
    for (const double noise : {0.1, 0.2, 0.4}) {
      const double now = figure(name, noise, name);
      EXPECT_GT(now, before) << name << " at noise " << noise;
      before = now;
    }
  }
  EXPECT_EQ(figure("precision_recall", 0, "precision"), 1);
  EXPECT_EQ(figure("precision_recall", 0, "recall"), 1);
  EXPECT_GT(figure("precision_recall", 0.2, "precision"), figure("precision_recall", 1.5, "precision"));
}

}  // namespace
}  // namespace brume::test
