// The order that multistep samplers declare is the one that they have: fitted to the error of the path and of the variance on the exact
// Gaussian, within 0.25. (conform/sampler.cpp asks for no less than is declared.)
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/core/sampler.h"
#include "support/gaussian.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr double from = 1, to = 0.3;

/// x at the end of the path that begins at 1, over the exact one.
double factor(const Sampler& sampler, int64_t steps) {
  const GaussianDenoiser data(0.6);
  const Condition none;
  const auto noise = per_image_noise(0, 0);
  const auto schedule = make<NoiseSchedule>("linear");
  Run run{none, *noise, {}, schedule.get()};
  const Tensor x = sampler.sample(data, at::full({1, 1}, 1.0, at::kDouble), curved(from, to, steps), run);
  return x.item<double>() / data.flow(from, to);
}

/// Least squares of log error against log steps.
double fitted_order(const Sampler& sampler, const std::function<double(double)>& error) {
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (const int64_t steps : {60, 120, 240, 480}) {
    const double x = std::log(double(steps)), y = std::log(std::max(error(factor(sampler, steps)), 1e-300));
    ++n, sx += x, sy += y, sxx += x * x, sxy += x * y;
  }
  return -(n * sxy - sx * sy) / (n * sxx - sx * sx);
}

class MultistepOrder : public testing::TestWithParam<std::string> {};

TEST_P(MultistepOrder, IsTheDeclaredOne) {
  const auto sampler = make<Sampler>(GetParam());
  const double strong = fitted_order(*sampler, [](double f) { return std::abs(f - 1); });
  const double weak = fitted_order(*sampler, [](double f) { return std::abs(f * f - 1); });
  EXPECT_NEAR(strong, sampler->traits().order, 0.25) << "the path";
  EXPECT_NEAR(weak, sampler->traits().order, 0.25) << "the variance of the samples";
}

std::vector<std::string> samplers() {
  std::vector<std::string> all;
  for (const int order : {1, 2, 3, 4}) all.push_back(fmt::format("{{type: lms, order: {}}}", order));
  all.push_back("stork_4");
  all.push_back("{type: stork_4, derivatives: 1}");
  for (const int order : {1, 2, 3, 4})
    for (const char* solver : {"bh1", "bh2"})
      for (const char* prediction : {"data", "noise"})
        for (const bool lower : {true, false})
          all.push_back(fmt::format("{{type: unipc, order: {}, solver: {}, prediction: {}, lower_order_final: {}}}", order, solver,
                                    prediction, lower));
  return all;
}

INSTANTIATE_TEST_SUITE_P(Samplers, MultistepOrder, testing::ValuesIn(samplers()), [](const auto& info) {
  std::string name;
  for (const char c : info.param)
    if (std::isalnum(static_cast<unsigned char>(c))) name += c;
  return name;
});

}  // namespace
}  // namespace brume::test
