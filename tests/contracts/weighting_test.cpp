// Every weighting: positive and finite, and the same weighting whatever the target of the error is.
#include <cmath>
#include <set>

#include "brume/core/objective.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr Target targets[] = {Target::noise, Target::image, Target::v, Target::flow};

/// Those that count every noise level the same in the units of the target, and so differ with it.
const std::set<std::string> in_units_of_the_target = {"none"};

class WeightingContract : public testing::TestWithParam<Specimen> {
 protected:
  std::shared_ptr<const Weighting> w_ = make<Weighting>(GetParam().yaml);
};

TEST_P(WeightingContract, PositiveAndFinite) {
  for (double sigma = 1e-3; sigma < 1.001e3; sigma *= 1.2)
    for (const Target target : targets) {
      const double w = w_->weight(sigma, target);
      ASSERT_TRUE(std::isfinite(w) && w > 0) << w << " at sigma " << sigma;
    }
}

TEST_P(WeightingContract, TheSameWhateverTheTarget) {
  if (in_units_of_the_target.contains(GetParam().name)) {
    for (const Target target : targets) EXPECT_EQ(w_->weight(0.7, target), w_->weight(30, target));
    return;
  }
  // An error of the noise weighs w e^2; that same error, seen as one of the target, is e / sqrt(noise_units).
  for (double sigma = 1e-3; sigma < 1.001e3; sigma *= 1.2) {
    const double noise = w_->weight(sigma, Target::noise);
    for (const Target target : targets)
      ASSERT_NEAR(w_->weight(sigma, target) / noise_units(sigma, target) / noise, 1, 1e-12) << "sigma " << sigma;
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, WeightingContract,
                         testing::ValuesIn(specimens("weighting", {"{type: min_snr, gamma: 1}", "{type: p2, gamma: 0.5, k: 2}",
                                                                   "{type: soft_min_snr, sigma_data: 0.3}", "{type: debiased, max_snr: 10}",
                                                                   "{type: edm, sigma_data: 1}"})),
                         readable);

/// k-diffusion weights the error of F, which is that of x0 by c_out of EDM: (sigma sd)^2 / (sigma^2 + sd^2)^2.
TEST(SoftMinSnr, IsKDiffusions) {
  const auto w = make<Weighting>("{type: soft_min_snr, sigma_data: 0.4}");
  for (const double s : {0.01, 0.4, 3.0, 80.0}) {
    const double sum = s * s + 0.16, c_out = 0.4 * s / std::sqrt(sum);
    EXPECT_NEAR(w->weight(s, Target::image) * c_out * c_out, 0.16 * s * s / (sum * sum), 1e-14);
  }
}

/// Under EDM's preconditioning the error of F counts the same at every level.
TEST(EdmWeighting, IsOneOnTheErrorOfTheNetwork) {
  const auto w = make<Weighting>("{type: edm, sigma_data: 0.4}");
  for (const double s : {0.01, 0.4, 3.0, 80.0}) {
    const double c_out = 0.4 * s / std::hypot(s, 0.4);
    EXPECT_NEAR(w->weight(s, Target::image) * c_out * c_out, 1, 1e-12);
  }
}

TEST(NoiseUnits, AnErrorOfTheNoiseInEachTarget) {
  // x = x0 + sigma n at fixed x: an error e of n is one of -sigma e in x0 and of sqrt(1 + sigma^2) e in v.
  for (const double sigma : {0.01, 1.0, 30.0}) {
    const double e = 0.1;
    EXPECT_NEAR(noise_units(sigma, Target::noise) * e * e, e * e, 1e-15);
    EXPECT_NEAR(noise_units(sigma, Target::image) * (sigma * e) * (sigma * e), e * e, 1e-15);
    EXPECT_NEAR(noise_units(sigma, Target::v) * (1 + sigma * sigma) * e * e, e * e, 1e-15);
    EXPECT_NEAR(noise_units(sigma, Target::flow) * (1 + sigma) * (1 + sigma) * e * e, e * e, 1e-15);
  }
}

}  // namespace
}  // namespace brume::test
