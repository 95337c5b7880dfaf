// Every parameterization keeps the laws of its kind (conform/parameterization.cpp), and its target is what its paper says.
#include <cmath>
#include <functional>
#include <map>

#include "brume/core/parameterization.h"
#include "support/laws.h"
#include "support/registry.h"

namespace brume::test {
namespace {

std::vector<double> sigmas() {
  std::vector<double> all;
  for (double s = 1e-4; s < 1e5; s *= 1.3) all.push_back(s);
  return all;
}

class ParameterizationContract : public testing::TestWithParam<Specimen> {
 protected:
  std::shared_ptr<const Parameterization> p_ = make<Parameterization>(GetParam().yaml);
  /// F* of the interface.
  double target(double x0, double noise, double sigma) const {
    return ((1 - p_->c_skip(sigma)) * x0 - p_->c_skip(sigma) * sigma * noise) / p_->c_out(sigma);
  }
};

TEST_P(ParameterizationContract, KeepsItsLaws) {
  for (const std::string& name : builtins().names("noise_schedule")) {
    SCOPED_TRACE(name);
    expect_to_hold(conform(*p_, *make<NoiseSchedule>(name)));
  }
}

/// F* as the papers write it, if one is known.
TEST_P(ParameterizationContract, TheTargetOfItsPaper) {
  static const std::map<std::string, std::function<double(double, double, double)>> papers = {
      {"eps", [](double, double n, double) { return n; }},
      {"{type: eps, sign: score}", [](double, double n, double) { return -n; }},
      {"score", [](double, double n, double s) { return -n / s; }},  // of N(x0, sigma^2)
      {"x0", [](double x0, double, double) { return x0; }},
      {"v", [](double x0, double n, double s) { return (n - s * x0) / std::hypot(1, s); }},  // alpha n - alpha sigma x0
      {"flow", [](double x0, double n, double) { return n - x0; }},
      {"edm", [](double x0, double n, double s) { return (s * x0 - 0.25 * n) / (0.5 * std::hypot(s, 0.5)); }},
  };
  const auto paper = papers.find(GetParam().yaml);
  if (paper == papers.end()) GTEST_SKIP() << "no formula of its own in this table";
  for (const double sigma : sigmas())
    if (sigma > 1e-3 && sigma < 1e3) {
      ASSERT_NEAR(target(0.3, -1.2, sigma), paper->second(0.3, -1.2, sigma), 1e-9) << "sigma " << sigma;
    }
}

INSTANTIATE_TEST_SUITE_P(Registry, ParameterizationContract,
                         testing::ValuesIn(specimens("parameterization",
                                                     {"{type: eps, sign: score}", "{type: edm, prediction: v, sigma_data: 1}",
                                                      "{type: consistency, sigma_data: 1}", "{type: flow, direction: to_image}"})),
                         readable);

/// Diffusers' v under EDM is EDM's F with the sign turned.
TEST(Edm, TheVelocityIsThePredictionTurned) {
  const auto eps = make<Parameterization>("edm"), v = make<Parameterization>("{type: edm, prediction: v}");
  for (const double sigma : sigmas()) {
    EXPECT_EQ(v->c_skip(sigma), eps->c_skip(sigma));
    EXPECT_EQ(v->c_out(sigma), -eps->c_out(sigma));
  }
}

/// Song et al. 2023, sec. 3: the boundary condition of consistency models.
TEST(Consistency, IsTheIdentityAtItsLeastSigma) {
  for (const double least : {0.0, 0.002, 0.1}) {
    const auto p = make<Parameterization>("{type: consistency, sigma_min: " + std::to_string(least) + "}");
    EXPECT_EQ(p->c_skip(least), 1);
    EXPECT_EQ(p->c_out(least), 0);
  }
}

}  // namespace
}  // namespace brume::test
