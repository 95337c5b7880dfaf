// Discrepancy, precision and recall, density and coverage, and the Inception score: laws, and the reference numbers.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "brume/numerics/frechet.h"
#include "brume/numerics/inception_score.h"
#include "brume/numerics/manifold.h"
#include "brume/numerics/mean_discrepancy.h"
#include "brume/numerics/moment_sum.h"
#include "brume/weights/safetensors.h"
#include "support/refs.h"

namespace brume::test {
namespace {

/// Computes with this many threads, as long as it lives.
class Threads final {
 public:
  explicit Threads(int count) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  int before_ = at::get_num_threads();
};

using at::Tensor;
using nlohmann::json;

constexpr const char* numbers = "../refs3/metrics/metrics.json";

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(at::kDouble));
}

Tensor reference(const std::string& name) {
  static const SafetensorsFile file(ref_path("../refs3/metrics/features.safetensors").string());
  return file.tensor(name).clone();
}

void near(double got, double wanted, double relative, const std::string& what) {
  EXPECT_NEAR(got, wanted, relative * std::abs(wanted) + 1e-300) << what;
}

/// Calls run(name, case, real, fake) for each case of the reference.
template <class F>
void for_cases(const F& run) {
  for (const auto& [name, c] : ref_json(numbers)["cases"].items()) run(name, c, reference(name + ".real"), reference(name + ".fake"));
}

PolynomialKernel kernel_of(const json& options) {
  PolynomialKernel k;
  k.degree = options.value("kid_kernel_poly_degree", k.degree);
  k.gamma = options.value("kid_kernel_poly_gamma", k.gamma);
  k.coef0 = options.value("kid_kernel_poly_coef0", k.coef0);
  return k;
}

TEST(ReferenceMetrics, Frechet) {
  BRUME_NEED_REF(numbers);
  for_cases([](const std::string& name, const json& c, const Tensor& real, const Tensor& fake) {
    const double d = frechet_distance(feature_statistics(real), feature_statistics(fake));
    for (const char* source : {"pytorch_fid", "adm", "torch_fidelity", "independent_nuclear_norm"})
      near(d, c["fid"][source], 1e-7, name + ", " + source);
  });
}

TEST(ReferenceMetrics, PrecisionRecallDensityCoverage) {
  BRUME_NEED_REF(numbers);
  for_cases([](const std::string& name, const json& c, const Tensor& real, const Tensor& fake) {
    for (const int64_t k : {3, 5}) {
      const json& wanted = c["prdc_k" + std::to_string(k)];
      const ManifoldScores s = manifold_scores(real, fake, k);
      near(s.precision, wanted["precision"], 1e-12, name);
      near(s.recall, wanted["recall"], 1e-12, name);
      near(s.density, wanted["density"], 1e-12, name);
      near(s.coverage, wanted["coverage"], 1e-12, name);
    }
    for (const auto& [ks, wanted] : c["improved_precision_recall"].items()) {
      if (ks != "(1, 4)" && ks != "(3,)") continue;
      const std::vector<int64_t> all = ks == "(3,)" ? std::vector<int64_t>{3} : std::vector<int64_t>{1, 4};
      for (size_t i = 0; i < all.size(); ++i) {
        const ManifoldScores s = manifold_scores(real, fake, all[i]);
        near(s.precision, wanted["precision"][i], 1e-12, name + ks);
        near(s.recall, wanted["recall"][i], 1e-12, name + ks);
      }
    }
  });
}

TEST(ReferenceMetrics, KernelDiscrepancies) {
  BRUME_NEED_REF(numbers);
  for_cases([](const std::string& name, const json& c, const Tensor& real, const Tensor& fake) {
    if (c.contains("kid_full"))
      for (const json& wanted : c["kid_full"]) {
        const SquaredMmd d = squared_mmd(fake, real, kernel_of(wanted["options"]));
        near(d.biased, wanted["biased"], 1e-9, name);
        near(d.unbiased, wanted["unbiased"], 1e-9, name);
      }
    for (const json& wanted : c["kid_subsets"]) {
      const auto subsets = wanted["subset_indices"].get<std::vector<Subset>>();
      const SubsetMmd d = squared_mmd_of_subsets(real, fake, subsets, kernel_of(wanted["options"]));
      near(d.mean, wanted["mean"], 1e-9, name);
      near(d.std, wanted["std"], 1e-9, name);
    }
    const auto unit = [](const Tensor& x) { return x.to(at::kDouble) / x.to(at::kDouble).square().sum(1, true).sqrt(); };
    near(1000 * squared_mmd(unit(real), unit(fake), GaussianKernel{}).biased, c["cmmd"]["unit_normalised"], 1e-9, name);
    near(1000 * squared_mmd(real, fake, GaussianKernel{}).biased, c["cmmd"]["raw"], 1e-9, name);
  });
}

TEST(ReferenceMetrics, InceptionScores) {
  BRUME_NEED_REF(numbers);
  const Tensor logits = reference("logits");
  const json& all = ref_json(numbers)["inception_score"];
  for (const json& wanted : all["torch_fidelity"]) {
    const Tensor rows =
        wanted["permutation"].is_null() ? logits : logits.index_select(0, at::tensor(wanted["permutation"].get<std::vector<int64_t>>()));
    const InceptionScore s = inception_score(rows, equal_splits(rows.size(0), wanted["splits"]));
    near(s.mean, wanted["mean"], 1e-9, "mean");
    EXPECT_NEAR(s.std, wanted["std"].get<double>(), 1e-12);
  }
  for (const json& wanted : all["adm"])
    near(inception_score(logits, splits_of_size(logits.size(0), wanted["split_size"])).mean, wanted["value"], 1e-9, "adm");
}

TEST(MomentSum, IsTheMomentsWhateverTheBatch) {
  const Tensor x = normal({700, 9}, 1) * 0.01 + 100;
  const FeatureStatistics wanted = feature_statistics(x);
  MomentSum whole, pieces;
  whole.add(x);
  for (int64_t i = 0; i < 700; i += 33) pieces.add(x.narrow(0, i, std::min<int64_t>(33, 700 - i)));
  EXPECT_EQ(pieces.count(), 700);
  const FeatureStatistics a = whole.statistics(), b = pieces.statistics();
  EXPECT_TRUE(a.mean.equal(b.mean));
  EXPECT_TRUE(a.covariance.equal(b.covariance));
  EXPECT_TRUE(a.mean.allclose(wanted.mean, 1e-14));
  EXPECT_TRUE(a.covariance.allclose(wanted.covariance, 1e-9, 1e-15));
  EXPECT_TRUE(a.covariance.equal(whole.statistics().covariance)) << "a second look changes nothing";
}

TEST(MomentSum, ConvergesToTheClosedFormOfTwoGaussians) {
  // Variances 1 and 4, means one apart in each of 3 dimensions: 3 (1 + (2 - 1)^2) = 6.
  double error = 1e9;
  for (const int64_t n : {200, 20000}) {
    MomentSum a, b;
    a.add(normal({n, 3}, 1)), b.add(normal({n, 3}, 2) * 2 + 1);
    const double now = std::abs(frechet_distance(a.statistics(), b.statistics()) - 6);
    EXPECT_LT(now, error);
    error = now;
  }
  EXPECT_LT(error, 0.15);
}

TEST(Discrepancy, BlocksAndThreadsChangeNothing) {
  const Tensor x = normal({1100, 5}, 1), y = normal({530, 5}, 2) + 0.3;
  const SquaredMmd d = squared_mmd(x, y, GaussianKernel{.sigma = 1});
  for (const int threads : {1, 3}) {
    const Threads here(threads);
    EXPECT_EQ(squared_mmd(x, y, GaussianKernel{.sigma = 1}).unbiased, d.unbiased) << threads;
  }
  const auto k = [](const Tensor& a, const Tensor& b) { return ((a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2) * -0.5).exp(); };
  const double xx = k(x, x).sum().item<double>(), yy = k(y, y).sum().item<double>(), xy = k(x, y).sum().item<double>();
  EXPECT_NEAR(d.biased, xx / (1100. * 1100) + yy / (530. * 530) - 2 * xy / (1100. * 530), 1e-12);
  EXPECT_NEAR(d.unbiased, (xx - 1100) / (1100. * 1099) + (yy - 530) / (530. * 529) - 2 * xy / (1100. * 530), 1e-12);
}

TEST(Discrepancy, ItsStandardErrorIsTheSpreadOfItsEstimates) {
  std::vector<double> estimates;
  double said = 0;
  constexpr int64_t repeats = 60;
  for (uint64_t i = 0; i < repeats; ++i) {
    const SquaredMmd d = squared_mmd(normal({120, 4}, 2 * i), normal({150, 4}, 2 * i + 1) + 0.5, PolynomialKernel{});
    estimates.push_back(d.unbiased), said += d.standard_error / repeats;
  }
  const double spread = at::tensor(estimates, at::kDouble).std().item<double>();
  EXPECT_GT(said, 0.7 * spread);
  EXPECT_LT(said, 1.4 * spread);
}

TEST(Discrepancy, SubsetsAreDrawnFromASeedWithoutRepetition) {
  const auto a = draw_subsets(3, 10, 12, 40, 7), b = draw_subsets(3, 10, 12, 40, 7), c = draw_subsets(3, 10, 12, 40, 8);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  ASSERT_EQ(a.size(), 3u);
  for (const auto& [x, y] : a) {
    EXPECT_EQ(std::set<int64_t>(x.begin(), x.end()).size(), 10u);
    EXPECT_EQ(std::set<int64_t>(y.begin(), y.end()).size(), 10u);
    EXPECT_LT(*std::max_element(x.begin(), x.end()), 12);
  }
  EXPECT_THROW(draw_subsets(1, 13, 12, 40, 0), std::invalid_argument);
}

/// Counts from distances computed one by one.
ManifoldScores one_by_one(const Tensor& real, const Tensor& fake, int64_t k) {
  const auto distance = [](const Tensor& a, int64_t i, const Tensor& b, int64_t j) {
    double sum = 0;
    for (int64_t f = 0; f < a.size(1); ++f) sum += std::pow(a[i][f].item<double>() - b[j][f].item<double>(), 2);
    return sum;
  };
  const auto radius = [&](const Tensor& x, int64_t i) {
    std::vector<double> d;
    for (int64_t j = 0; j < x.size(0); ++j)
      if (j != i) d.push_back(distance(x, i, x, j));
    std::sort(d.begin(), d.end());
    return d[size_t(k - 1)];
  };
  ManifoldScores s;
  const int64_t n = real.size(0), m = fake.size(0);
  std::vector<int> precise(static_cast<size_t>(m), 0);
  for (int64_t j = 0; j < n; ++j) {
    bool covered = false;
    for (int64_t i = 0; i < m; ++i) {
      const double d = distance(fake, i, real, j), r = radius(real, j);
      if (d <= r) precise[size_t(i)] = 1;
      if (d < r) covered = true, s.density += 1.0 / double(k * m);
    }
    s.coverage += covered / double(n);
  }
  s.precision = double(std::count(precise.begin(), precise.end(), 1)) / double(m);
  for (int64_t j = 0; j < n; ++j) {
    bool recalled = false;
    for (int64_t i = 0; i < m && !recalled; ++i) recalled = distance(fake, i, real, j) <= radius(fake, i);
    s.recall += recalled / double(n);
  }
  return s;
}

TEST(Manifold, TiesAreCountedExactly) {
  // Whole numbers far from the origin: nearly every distance equals a radius, and rounding of products would decide.
  const Tensor real = (normal({24, 2}, 1) * 2).round() + 1000,
               fake = at::cat({real.narrow(0, 0, 6), (normal({14, 2}, 2) * 2).round() + 1000});
  for (const int64_t k : {1, 2, 5}) {
    const ManifoldScores s = manifold_scores(real, fake, k), wanted = one_by_one(real, fake, k);
    EXPECT_NEAR(s.precision, wanted.precision, 1e-12) << k;
    EXPECT_NEAR(s.recall, wanted.recall, 1e-12) << k;
    EXPECT_NEAR(s.density, wanted.density, 1e-12) << k;
    EXPECT_NEAR(s.coverage, wanted.coverage, 1e-12) << k;
  }
}

TEST(Manifold, BlocksAndThreadsChangeNothing) {
  const Tensor real = normal({2100, 3}, 1), fake = normal({300, 3}, 2) * 1.5;
  const auto turned = [](const Tensor& x) { return x.flip({0}); };
  const ManifoldScores s = manifold_scores(real, fake, 3), other = manifold_scores(turned(real), turned(fake), 3);
  EXPECT_EQ(s.precision, other.precision);
  EXPECT_EQ(s.recall, other.recall);
  EXPECT_EQ(s.density, other.density);
  EXPECT_EQ(s.coverage, other.coverage);
  for (const int threads : {1, 3}) {
    const Threads here(threads);
    const ManifoldScores again = manifold_scores(real, fake, 3);
    EXPECT_EQ(again.density, s.density) << threads;
    EXPECT_EQ(again.precision, s.precision) << threads;
  }
  EXPECT_GT(s.precision, 0.2);
  EXPECT_LT(s.precision, 1);
  EXPECT_THROW(manifold_scores(real, fake.narrow(0, 0, 3), 3), std::invalid_argument);
}

TEST(InceptionScores, LieBetweenOneAndTheNumberOfClasses) {
  EXPECT_NEAR(inception_score(at::zeros({20, 5}), {0, 20}).mean, 1, 1e-12);
  const Tensor sure = at::zeros({20, 5}, at::kDouble);
  for (int64_t i = 0; i < 20; ++i) sure[i][i % 5] = 1000;
  EXPECT_NEAR(inception_score(sure, equal_splits(20, 4)).mean, 5, 1e-9);
  EXPECT_EQ(equal_splits(7, 3), (std::vector<int64_t>{0, 2, 4, 7}));
  EXPECT_EQ(splits_of_size(7, 3), (std::vector<int64_t>{0, 3, 6, 7}));
}

}  // namespace
}  // namespace brume::test
