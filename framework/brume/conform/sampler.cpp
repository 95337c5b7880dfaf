#include "brume/conform/conform.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/conform/codes.h"
#include "brume/conform/exact_denoisers.h"
#include "brume/conform/four_threads.h"
#include "brume/conform/sampler_runs.h"
#include "brume/numerics/rk45.h"

namespace brume {
namespace {

const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);

/// Returns x on the probability-flow ODE, from one sigma to another, to eleven digits.
Tensor exact(const Denoiser& data, const Tensor& x, double from, double to) {
  const Condition none;
  const auto slope = [&](double u, const Tensor& y) { return y - data.denoise(y, std::exp(u), none).x0; };
  return rk45(slope, x, std::log(from), std::log(to), {.rtol = 1e-12, .atol = 1e-13}).x;
}

bool follows_the_ode(const Sampler& s) { return s.traits().order > 0 && !s.traits().consistency; }

constexpr double noisy = 8, clean = 0.05;
Tensor start() { return at::linspace(-11, 11, 12, f64).view({12, 1}); }

void check_order(std::vector<Finding>& findings, const Sampler& sampler, const Denoiser& data, const char* name) {
  const Law law{fmt::format("order on the {}", name), "The error against the exact probability-flow path falls at the declared order",
                "Song et al. 2021, eq. 13"};
  check(findings, law, [&](Finding& f) {
    const Convergence c = convergence(sampler, data);
    f.measured = fmt::format("{:.2f} (error {:.1e})", c.order, c.error);
    f.wanted = fmt::format("{} or more", sampler.traits().order);
    f.holds = c.order > sampler.traits().order - 0.35 || c.error < 1e-9;
  });
}

void check_path(std::vector<Finding>& findings, const Sampler& sampler) {
  const MixtureDenoiser data = mixture_data();
  if (sampler.traits().own_steps) {
    const Law law{"error on the mixture", "A sampler with steps of its own ends at the exact solution, within its tolerance"};
    check(findings, law, [&](Finding& f) {
      const Tensor wanted = exact(data, start(), noisy, clean);
      const double error = (run_sampler(sampler, data, start(), curved_levels(noisy, clean, 96)) - wanted).abs().max().item<double>();
      f.measured = fmt::format("{:.1e}", error), f.wanted = "below 0.2, by its own tolerance", f.holds = error < 0.2;
    });
  } else {
    check_order(findings, sampler, gaussian_data(), "Gaussian");
    check_order(findings, sampler, data, "mixture");
  }
  const Law law{"round trip, 400 steps", "A deterministic sampler is inverted by ascending sigmas", "Song et al. 2021, sec. 4.3"};
  check(findings, law, [&](Finding& f) {
    const std::vector<double> down = curved_levels(noisy, clean, 400), up(down.rbegin(), down.rend());
    const Tensor x = at::linspace(-1.5, 1.5, 12, f64).view({12, 1});
    const double error = (run_sampler(sampler, data, run_sampler(sampler, data, x, up), down) - x).abs().max().item<double>();
    f.measured = fmt::format("{:.1e}", error), f.wanted = "below 0.1", f.holds = error < 0.1;
  });
}

/// Allows five standard errors, and what some hundred steps leave of bias.
void check_distribution(std::vector<Finding>& findings, const Sampler& sampler) {
  const MixtureDenoiser data = mixture_data();
  const int64_t count = 20000;
  const double deviation = std::sqrt(data.variance());
  const std::vector<double> sigmas = curved_levels_to_zero(40, 0.01, 401);
  const Law law{"distribution of the mixture, 400 steps", "Samples of the exact denoiser have the mean and variance of the data"};
  check(findings, law, [&](Finding& f) {
    const auto noise = per_image_noise(5, 0);
    const Tensor begin = noise->draw(at::zeros({1, count}, f64), 1, 1).view({count, 1}) * 40.0 + data.mean();
    // One image of many points draws its noise at once.
    const Tensor x = run_sampler(sampler, PointsAsImage(data), begin.view({1, count}), sigmas, 7);
    const double mean = x.mean().item<double>(), variance = x.var().item<double>();
    f.measured = fmt::format("mean {:.3f}, variance {:.3f}", mean, variance);
    f.wanted = fmt::format("mean {:.3f}, variance {:.3f}", data.mean(), data.variance());
    f.holds = std::abs(mean - data.mean()) < 5 * deviation / std::sqrt(double(count)) + 0.02 * deviation &&
              std::abs(variance / data.variance() - 1) < 5 * std::sqrt(2.0 / double(count)) + 0.05;
  });
}

void check_ends(std::vector<Finding>& findings, const Sampler& sampler) {
  const MixtureDenoiser data = mixture_data();
  check(findings, {"one step to sigma = 0", "A run of one step is finite"}, [&](Finding& f) {
    const Tensor x = run_sampler(sampler, data, start(), {noisy, 0});
    f.holds = at::isfinite(x).all().item<bool>() && x.sizes() == start().sizes();
    f.measured = f.holds ? "finite" : "not finite", f.wanted = "finite";
  });
  check(findings, {"1000 steps, the last to sigma = 0", "A run of many small steps is finite"}, [&](Finding& f) {
    const std::vector<double> sigmas = curved_levels_to_zero(noisy, clean, 1000);
    f.holds = at::isfinite(run_sampler(sampler, data, start(), sigmas)).all().item<bool>();
    f.measured = f.holds ? "finite" : "not finite", f.wanted = "finite";
  });
}

/// Returns a run of 16 steps to 0.
std::vector<double> usual_sigmas() { return curved_levels_to_zero(noisy, clean, 16); }

void check_noise(std::vector<Finding>& findings, const Sampler& sampler) {
  const MixtureDenoiser data = mixture_data();
  const std::vector<double> sigmas = usual_sigmas();
  check(findings, {"image i alone and in a batch of 12", "An image has the same bits whatever its batch"}, [&](Finding& f) {
    const Tensor together = run_sampler(sampler, data, start(), sigmas, 3);
    int64_t same = 0;
    for (int64_t i = 0; i < 12; ++i)
      same += at::equal(run_sampler(sampler, data, start().narrow(0, i, 1), sigmas, 3, i), together.narrow(0, i, 1));
    f.measured = fmt::format("{} of 12 equal", same), f.wanted = "12 of 12, bit for bit", f.holds = same == 12;
  });
  if (sampler.traits().consistency) return;
  check(findings, {"noise of two seeds", "A sampler of order 0 adds noise, every other one adds none"}, [&](Finding& f) {
    const bool same = at::equal(run_sampler(sampler, data, start(), sigmas, 1), run_sampler(sampler, data, start(), sigmas, 2));
    const bool wanted = sampler.traits().order > 0;
    f.measured = same ? "equal" : "different", f.wanted = wanted ? "equal" : "different", f.holds = same == wanted;
  });
}

void check_value(std::vector<Finding>& findings, const Sampler& sampler) {
  const MixtureDenoiser data = mixture_data();
  const std::vector<double> sigmas = usual_sigmas();
  check(findings, {"its input", "A sampler does not write to the x that it is given"}, [&](Finding& f) {
    const Tensor x = start();
    run_sampler(sampler, data, x, sigmas);
    f.holds = at::equal(x, start());
    f.measured = f.holds ? "unchanged" : fmt::format("changed by up to {:.2g}", (x - start()).abs().max().item<double>());
    f.wanted = "unchanged";
  });
  check_four_threads(findings, "A sampler keeps no state between calls",
                     [&](size_t seed) { return run_sampler(sampler, data, start(), sigmas, seed); });
}

}  // namespace

Convergence convergence(const Sampler& sampler, const Denoiser& data) {
  const at::NoGradGuard no_grad;
  const Tensor wanted = exact(data, start(), noisy, clean);
  // Least squares of log error against log steps.
  const std::vector<int64_t> counts{24, 48, 96, 192};
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, error = 0;
  for (const int64_t steps : counts) {
    error = (run_sampler(sampler, data, start(), curved_levels(noisy, clean, steps)) - wanted).pow(2).mean().sqrt().item<double>();
    const double x = std::log(double(steps)), y = std::log(std::max(error, 1e-300));
    ++n, sx += x, sy += y, sxx += x * x, sxy += x * y;
  }
  return {-(n * sxy - sx * sy) / (n * sxx - sx * sx), error / wanted.pow(2).mean().sqrt().item<double>()};
}

std::vector<Finding> conform(const Sampler& sampler) {
  const at::NoGradGuard no_grad;
  if (of_codes(sampler)) return conform_codes(sampler);
  std::vector<Finding> findings;
  if (follows_the_ode(sampler)) check_path(findings, sampler);
  if (!sampler.traits().consistency) check_distribution(findings, sampler);
  check_ends(findings, sampler);
  check_noise(findings, sampler);
  check_value(findings, sampler);
  return findings;
}

}  // namespace brume
