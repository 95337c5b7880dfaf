#pragma once
// The embedded Runge-Kutta pair of orders 5 and 4 of Dormand & Prince (1980) with a step size that follows the error (Hairer, Nørsett &
// Wanner 1993, sec. II.4), as SciPy's RK45 has it.
//
//   x' = f(t, x),   error = |h sum_j e_j k_j / (atol + rtol max(|x|, |x_new|))|,   h <- 0.9 h error^(-1/5), by 0.2 to 10 at most
//
// There is one step size for the whole state: if image i must not depend on its batch, integrate the images one by one.
#include <ATen/TensorOperators.h>
#include <ATen/ops/maximum.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "brume/config/errors.h"
#include "brume/core/tensor.h"

namespace brume {

struct Rk45Options {
  double rtol = 1e-5, atol = 1e-5;
  int64_t most_steps = 100000;
};

struct Rk45Result {
  Tensor x;                 ///< at the end
  int64_t evaluations = 0;  ///< of f
  int64_t steps = 0;        ///< accepted
  int64_t rejected = 0;
};

namespace rk45_detail {
inline constexpr std::array<double, 7> c{0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1};
inline constexpr std::array<std::array<double, 6>, 7> a{{{},
                                                         {1.0 / 5},
                                                         {3.0 / 40, 9.0 / 40},
                                                         {44.0 / 45, -56.0 / 15, 32.0 / 9},
                                                         {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
                                                         {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
                                                         {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84}}};
/// Weights of order 5 less those of order 4.
inline constexpr std::array<double, 7> e{71.0 / 57600, 0, -71.0 / 16695, 71.0 / 1920, -17253.0 / 339200, 22.0 / 525, -1.0 / 40};

/// Returns the root of the mean square of v / scale.
inline double norm(const Tensor& v, const Tensor& scale) { return std::sqrt((v / scale).to(at::kDouble).square().mean().item<double>()); }
}  // namespace rk45_detail

/// Returns one step of size h from (t, x): k[0] = f(t, x) is given, k[1] ... k[6] are filled, the last one f(t + h, result). Order 5.
template <class F>
Tensor rk45_step(F&& f, double t, const Tensor& x, double h, std::array<Tensor, 7>& k) {
  Tensor next;
  for (size_t i = 1; i < 7; ++i) {
    next = x;
    for (size_t j = 0; j < i; ++j)
      if (rk45_detail::a[i][j] != 0) next = next + k[j] * (h * rk45_detail::a[i][j]);
    k[i] = f(t + rk45_detail::c[i] * h, next);
  }
  return next;
}

/// Returns a first step size from the sizes of x, x' and x'' (Hairer et al., sec. II.4). One evaluation.
template <class F>
double rk45_first_step(F&& f, double t, const Tensor& x, const Tensor& slope, double distance, const Rk45Options& o) {
  const Tensor scale = x.abs() * o.rtol + o.atol;
  const double size = rk45_detail::norm(x, scale), speed = rk45_detail::norm(slope, scale);
  const double guess = std::min(std::abs(distance), size < 1e-5 || speed < 1e-5 ? 1e-6 : 0.01 * size / speed);
  const double h = std::copysign(guess, distance);
  const double bend = rk45_detail::norm(f(t + h, x + slope * h) - slope, scale) / guess;
  const double better = std::max(speed, bend) <= 1e-15 ? std::max(1e-6, guess * 1e-3) : std::pow(0.01 / std::max(speed, bend), 0.2);
  return std::copysign(std::min({100 * guess, better, std::abs(distance)}), distance);
}

/// Integrates x from `from` to `to`, in either direction. `f(t, x)` gives a tensor like x. `accepted(t, x)` is called after every step that
/// counts. Throws ConfigError if the step size becomes too small or the steps too many (rtol and atol are the user's).
template <class F, class G>
Rk45Result rk45(F&& f, Tensor x, double from, double to, const Rk45Options& o, G&& accepted) {
  Rk45Result r{std::move(x)};
  if (from == to) return r;
  const auto counted = [&](double t, const Tensor& state) { return ++r.evaluations, f(t, state); };
  std::array<Tensor, 7> k;
  k[0] = counted(from, r.x);
  double t = from, h = rk45_first_step(counted, t, r.x, k[0], to - from, o);
  bool again = false;  // the last try was rejected: the next step does not grow
  while (t != to) {
    const bool last = std::abs(h) >= std::abs(to - t);
    if (last) h = to - t;
    const Tensor next = rk45_step(counted, t, r.x, h, k);
    Tensor error = k[0] * (h * rk45_detail::e[0]);
    for (size_t j = 2; j < 7; ++j) error = error + k[j] * (h * rk45_detail::e[j]);
    const double wrong = rk45_detail::norm(error, at::maximum(r.x.abs(), next.abs()) * o.rtol + o.atol);
    const double factor = wrong == 0 ? 10 : std::clamp(0.9 * std::pow(wrong, -0.2), 0.2, again ? 1.0 : 10.0);
    again = !(wrong <= 1);  // NaN is rejected too
    if (again) {
      ++r.rejected;
      h *= std::isfinite(factor) ? std::min(factor, 0.9) : 0.2;
      if (std::abs(h) < 1e-13 * std::max(std::abs(t), std::abs(to)) + 1e-300 || r.rejected > o.most_steps)
        throw ConfigError(
            fmt::format("the adaptive solver cannot go on at t = {:.6g}: rtol = {} and atol = {} ask for more than the numbers "
                        "can give, or the network gave NaN or Inf",
                        t, o.rtol, o.atol));
      continue;
    }
    if (++r.steps > o.most_steps)
      throw ConfigError(fmt::format("the adaptive solver took more than {} steps; raise rtol or atol", o.most_steps));
    t = last ? to : t + h;
    h *= factor;
    r.x = next;
    k[0] = k[6];  // the last slope is the next step's first
    accepted(t, r.x);
  }
  return r;
}

template <class F>
Rk45Result rk45(F&& f, Tensor x, double from, double to, const Rk45Options& o = {}) {
  return rk45(f, std::move(x), from, to, o, [](double, const Tensor&) {});
}

}  // namespace brume
