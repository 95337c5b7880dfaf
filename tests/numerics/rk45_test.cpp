// The adaptive Runge-Kutta pair: order five, errors that follow the tolerance, both directions, and what it says when it cannot go on.
#include "brume/numerics/rk45.h"

#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "support/registry.h"

namespace brume::test {
namespace {

/// x' = -2 t x: x = x0 exp(-t^2).
Tensor bell(double t, const Tensor& x) { return x * (-2 * t); }
Tensor one() { return at::full({1, 2}, 1.0, at::kDouble); }

double fixed_step_error(int64_t steps) {
  Tensor x = one();
  const double h = 1.5 / double(steps);
  for (int64_t i = 0; i < steps; ++i) {
    std::array<Tensor, 7> k;
    k[0] = bell(double(i) * h, x);
    x = rk45_step(bell, double(i) * h, x, h, k);
  }
  return std::abs(x.view(-1)[0].item<double>() - std::exp(-2.25));
}

TEST(Rk45, IsOfFifthOrder) {
  for (const int64_t steps : {16, 32}) {
    const double order = std::log2(fixed_step_error(steps) / fixed_step_error(2 * steps));
    EXPECT_GT(order, 4.7) << steps;
    EXPECT_LT(order, 5.8) << steps;
  }
}

/// A pendulum's energy cannot be got right by luck.
Tensor pendulum(double, const Tensor& x) { return at::stack({x[1], -x[0].sin()}); }

TEST(Rk45, TheErrorFollowsTheTolerance) {
  const Tensor start = at::tensor({1.2, 0.0}, at::kDouble);
  const Tensor exact = rk45(pendulum, start, 0, 10, {1e-12, 1e-12}).x;
  double before = 1;
  int64_t evaluations = 0;
  for (const double tolerance : {1e-3, 1e-5, 1e-7, 1e-9}) {
    const Rk45Result r = rk45(pendulum, start, 0, 10, {tolerance, tolerance});
    const double error = (r.x - exact).abs().max().item<double>();
    EXPECT_LT(error, 50 * tolerance);
    EXPECT_LT(error, before);
    EXPECT_GT(r.evaluations, evaluations);
    before = error, evaluations = r.evaluations;
  }
}

TEST(Rk45, GoesBothWaysAndEndsWhereItShould) {
  std::vector<double> times;
  const Rk45Result there = rk45(bell, one(), 0.2, 1.7, {1e-10, 1e-10}, [&](double t, const Tensor&) { times.push_back(t); });
  EXPECT_EQ(times.back(), 1.7);
  EXPECT_EQ(int64_t(times.size()), there.steps);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  const Rk45Result back = rk45(bell, there.x, 1.7, 0.2, {1e-10, 1e-10});
  EXPECT_LT((back.x - one()).abs().max().item<double>(), 1e-8);
  EXPECT_EQ(rk45(bell, one(), 3, 3).evaluations, 0);
}

TEST(Rk45, CountsWhatItAsks) {
  int64_t asked = 0;
  const Rk45Result r = rk45([&](double t, const Tensor& x) { return ++asked, bell(t, x); }, one(), 0, 2);
  EXPECT_EQ(asked, r.evaluations);
  EXPECT_EQ(r.evaluations, 2 + 6 * (r.steps + r.rejected));
}

TEST(Rk45, SaysWhereItCannotGoOn) {
  const std::string said = error_of([] { rk45([](double t, const Tensor& x) { return x / (t < 0.5 ? 1.0 : 0.0); }, one(), 0, 1); });
  EXPECT_NE(said.find("the adaptive solver cannot go on at t = 0."), std::string::npos) << said;
}

}  // namespace
}  // namespace brume::test
