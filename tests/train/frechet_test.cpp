// The Fréchet distance: laws, closed forms, and the reference numbers.
#include "brume/numerics/frechet.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/refs.h"

namespace brume::test {
namespace {

using at::Tensor;

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(at::kDouble));
}

Tensor vector(const std::vector<double>& values) { return at::tensor(values, at::TensorOptions().dtype(at::kDouble)); }

FeatureStatistics gaussian(const std::vector<double>& mean, const std::vector<double>& variance) {
  return {vector(mean), at::diag(vector(variance))};
}

/// A rotation.
Tensor orthogonal(int64_t n, uint64_t seed) { return std::get<0>(at::linalg_qr(normal({n, n}, seed))); }

TEST(Frechet, EqualSetsAreZeroApart) {
  for (const int64_t n : {2, 5, 300}) {  // fewer images than features: the covariance is singular
    const FeatureStatistics s = feature_statistics(normal({n, 16}, 1));
    EXPECT_NEAR(frechet_distance(s, s), 0, 1e-12) << n;
  }
}

TEST(Frechet, EqualCovariancesLeaveTheMeans) {
  const Tensor x = normal({100, 8}, 2), shift = normal({8}, 3);
  EXPECT_NEAR(frechet_distance(feature_statistics(x), feature_statistics(x + shift)), shift.square().sum().item<double>(), 1e-10);
}

TEST(Frechet, DiagonalGaussians) {
  const FeatureStatistics a = gaussian({0, 1, -2}, {4, 1, 0.25}), b = gaussian({1, 1, 1}, {1, 9, 0});
  EXPECT_NEAR(frechet_distance(a, b), (1 + 0 + 9) + (1 + 4 + 0.25), 1e-12);  // sum of (m - m')^2 + (s - s')^2
}

TEST(Frechet, IsSymmetricAndBlindToRotation) {
  const Tensor x = normal({60, 12}, 4), y = normal({40, 12}, 5) * 2 + 0.5, turn = orthogonal(12, 6);
  const double xy = frechet_distance(feature_statistics(x), feature_statistics(y));
  EXPECT_NEAR(frechet_distance(feature_statistics(y), feature_statistics(x)), xy, 1e-9 * xy);
  EXPECT_NEAR(frechet_distance(feature_statistics(at::mm(x, turn)), feature_statistics(at::mm(y, turn))), xy, 1e-9 * xy);
}

TEST(Frechet, SingularCovariancesAreNoTrouble) {
  // Two planes in different directions of a space of 20: the rotation shows where a plain square root would break down.
  const Tensor turn = orthogonal(20, 7);
  const auto plane = [&](int64_t first) {
    std::vector<double> variance(20, 0);
    variance[size_t(first)] = 4, variance[size_t(first) + 1] = 1;
    return FeatureStatistics{at::zeros({20}, at::kDouble), at::mm(at::mm(turn, at::diag(vector(variance))), turn.t())};
  };
  EXPECT_NEAR(frechet_distance(plane(0), plane(0)), 0, 1e-6);
  EXPECT_NEAR(frechet_distance(plane(0), plane(4)), 10, 1e-6);          // nothing in common: both traces
  EXPECT_NEAR(frechet_distance(plane(0), plane(1)), 10 - 2 * 2, 1e-6);  // one direction in common, variances 1 and 4
}

TEST(Frechet, Statistics) {
  const FeatureStatistics s = feature_statistics(vector({1, 2, 3, 6}).view({2, 2}));
  EXPECT_EQ(s.mean[0].item<double>(), 2);
  EXPECT_EQ(s.mean[1].item<double>(), 4);
  EXPECT_EQ(s.covariance[0][0].item<double>(), 2);
  EXPECT_EQ(s.covariance[0][1].item<double>(), 4);
  EXPECT_EQ(s.covariance[1][1].item<double>(), 8);
}

TEST(Frechet, ShapesAreChecked) {
  const auto said = [](const auto& run) -> std::string {
    try {
      run();
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(said([] { feature_statistics(at::zeros({1, 3})); }), "statistics need features [N, F] with N >= 2, got [1, 3]");
  EXPECT_EQ(said([] {
              frechet_distance(gaussian({0}, {1}), gaussian({0, 0}, {1, 1}));
            }),
            "features of 1 and of 2 dimensions cannot be compared");
}

TEST(Frechet, OfTheReference) {
  BRUME_NEED_REF("training_misc.json");
  const auto& fid = ref_json("training_misc.json")["metrics"];
  const auto features = [](int64_t n, int64_t d, double a, double b) {  // the formula the file gives
    const Tensor i = at::arange(n * d, at::kDouble);
    return ((i * 0.37 + a).sin() + ((i * 0.11 * i).remainder(17) + b).cos() * 0.3).view({n, d});
  };
  const Tensor x = features(300, 8, 0.1, 0.2), y = features(250, 8, 0.9, 0.5) * 1.3 + 0.2;
  ASSERT_NEAR(x.sum().item<double>(), fid["x_sum"].get<double>(), 1e-6);
  ASSERT_NEAR(y.sum().item<double>(), fid["y_sum"].get<double>(), 1e-6);
  const double wanted = fid["fid"].get<double>();
  EXPECT_NEAR(frechet_distance(feature_statistics(x), feature_statistics(y)), wanted, 1e-6 * wanted);
}

TEST(ClassSpread, IsTheMeanDistanceOfPairs) {
  const Tensor x = vector({0, 3, 9, 100, 101}).view({5, 1});
  const std::vector<double> spread = class_spread(x, {0, 0, 0, 2, -1}, 4);
  ASSERT_EQ(spread.size(), 4u);
  EXPECT_DOUBLE_EQ(spread[0], (3 + 9 + 6) / 3.0);
  for (const size_t c : {1, 2, 3}) EXPECT_TRUE(std::isnan(spread[c])) << c;  // none, one, none
}

TEST(ClassSpread, LargeClassesAreTakenInPieces) {
  const Tensor x = normal({700, 3}, 8);
  double sum = 0;
  for (int64_t i = 0; i < 700; ++i) sum += (x - x[i]).square().sum(1).sqrt().sum().item<double>();
  EXPECT_NEAR(class_spread(x, std::vector<int64_t>(700, 0), 1)[0], sum / (700 * 699), 1e-12);
}

}  // namespace
}  // namespace brume::test
