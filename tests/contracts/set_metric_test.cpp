// What every set metric keeps: its figures have names, are finite, and depend on nothing but the sets.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <stdexcept>

#include "brume/core/set_metric.h"
#include "brume/numerics/frechet.h"
#include "support/registry.h"

namespace brume::test {
namespace {

Tensor normal(at::IntArrayRef shape, uint64_t seed) { return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions()); }

FeatureSummary summary(int64_t images, uint64_t seed, double noise = 0) {
  const auto noisy = [&](at::IntArrayRef shape, uint64_t s) { return normal(shape, s) + normal(shape, s + 100) * noise; };
  const Tensor rows = noisy({images, 6}, seed), spatial = noisy({images, 5}, seed + 1), logits = normal({images, 7}, seed + 2);
  return {"a set", images, feature_statistics(rows), feature_statistics(spatial), rows, logits, rows + normal({images, 6}, seed + 3)};
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
    if (!needs.captions) s.captions = Tensor();
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
  for (const std::string name : {"fid", "sfid", "fd_dinov2", "cmmd"}) {
    double before = figure(name, 0, name);
    EXPECT_NEAR(before, 0, 1e-9) << name;
    for (const double noise : {0.1, 0.2, 0.4}) {
      const double now = figure(name, noise, name);
      EXPECT_GT(now, before) << name << " at noise " << noise;
      before = now;
    }
  }
  for (const auto& [metric, name] :
       {std::pair<std::string, std::string>{"precision_recall", "precision"}, {"density_coverage", "coverage"}}) {
    double before = figure(metric, 0, name);
    EXPECT_EQ(before, 1) << name;
    for (const double noise : {0.4, 0.8, 1.6}) {
      const double now = figure(metric, noise, name);
      EXPECT_LT(now, before) << name << " at noise " << noise;
      before = now;
    }
  }
  EXPECT_EQ(figure("precision_recall", 0, "recall"), 1);
}

TEST(SetMetrics, ClipScoreIsTheMeanCosineWithoutNegativeOnes) {
  FeatureSummary set;
  set.rows = at::tensor({3.f, 0.f, 0.f, 2.f, 1.f, 1.f}).view({3, 2}),
  set.captions = at::tensor({1.f, 0.f, 0.f, -5.f, 1.f, 0.f}).view({3, 2});
  const auto figures = make<SetMetric>("clip_score")->score(set, {});
  EXPECT_NEAR(figures[0].value, 100 * (1 + 0 + std::sqrt(0.5)) / 3, 1e-12);
  EXPECT_NEAR(make<SetMetric>("{type: clip_score, weight: 2.5}")->score(set, {})[0].value, figures[0].value / 40, 1e-12);
}

}  // namespace
}  // namespace brume::test
