#include "brume/diffusion/conform.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "brume/diffusion/exact_denoisers.h"
#include "brume/numerics/discrete_schedule.h"
#include "brume/numerics/rk45.h"

namespace brume {
namespace {

const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);

/// The schedule of samplers that work in training times.
struct CosineTimes {
  BetaTable table() const {
    return BetaTable(betas_of([](double u) { return std::pow(std::cos((u + 0.008) / 1.008 * M_PI / 2), 2); }, 1000, 0.999));
  }
};

/// steps + 1 levels from `first` to `last`, evenly in sigma^(1/7).
std::vector<double> levels(double first, double last, int64_t steps) {
  std::vector<double> sigmas = linspace(std::pow(first, 1.0 / 7), std::pow(last, 1.0 / 7), steps + 1);
  for (double& s : sigmas) s = std::pow(s, 7);
  sigmas.front() = first;
  sigmas.back() = last;
  return sigmas;
}

Tensor run(const Sampler& sampler, const Denoiser& data, const Tensor& x, const std::vector<double>& sigmas, uint64_t seed = 1,
           int64_t first = 0) {
  static const DiscreteSchedule<CosineTimes> schedule{{}};
  const Condition none;
  const auto noise = per_image_noise(seed, first);
  Run run{none, *noise, {}, &schedule};
  return sampler.sample(data, x, sigmas, run);
}

/// x on the probability-flow ODE, from one sigma to another, to eleven digits.
Tensor exact(const Denoiser& data, const Tensor& x, double from, double to) {
  const Condition none;
  const auto slope = [&](double u, const Tensor& y) { return y - data.denoise(y, std::exp(u), none).x0; };
  return rk45(slope, x, std::log(from), std::log(to), {.rtol = 1e-12, .atol = 1e-13}).x;
}

bool follows_the_ode(const Sampler& s) { return s.traits().order > 0 && !s.traits().consistency; }

constexpr double noisy = 8, clean = 0.05;
Tensor start() { return at::linspace(-11, 11, 12, f64).view({12, 1}); }

/// What a law says when the sampler throws is the message.
template <class F>
void check(std::vector<Finding>& findings, const std::string& law, const F& f) {
  Finding finding{law, {}, {}, true};
  try {
    f(finding);
  } catch (const std::exception& e) {
    finding.measured = e.what();
    finding.holds = false;
  }
  findings.push_back(finding);
}

void check_order(std::vector<Finding>& findings, const Sampler& sampler, const Denoiser& data, const char* name) {
  check(findings, fmt::format("order on the {}", name), [&](Finding& f) {
    const Convergence c = convergence(sampler, data);
    f.measured = fmt::format("{:.2f} (error {:.1e})", c.order, c.error);
    f.wanted = fmt::format("{} or more", sampler.traits().order);
    f.holds = c.order > sampler.traits().order - 0.35 || c.error < 1e-9;
  });
}

void check_path(std::vector<Finding>& findings, const Sampler& sampler) {
  const MixtureDenoiser data = mixture_data();
  if (sampler.traits().own_steps) {
    check(findings, "error on the mixture", [&](Finding& f) {
      const Tensor wanted = exact(data, start(), noisy, clean);
      const double error = (run(sampler, data, start(), levels(noisy, clean, 96)) - wanted).abs().max().item<double>();
      f.measured = fmt::format("{:.1e}", error), f.wanted = "below 0.2, by its own tolerance", f.holds = error < 0.2;
    });
  } else {
    check_order(findings, sampler, gaussian_data(), "Gaussian");
    check_order(findings, sampler, data, "mixture");
  }
  check(findings, "round trip, 400 steps", [&](Finding& f) {
    const std::vector<double> down = levels(noisy, clean, 400), up(down.rbegin(), down.rend());
    const Tensor x = at::linspace(-1.5, 1.5, 12, f64).view({12, 1});
    const double error = (run(sampler, data, run(sampler, data, x, up), down) - x).abs().max().item<double>();
    f.measured = fmt::format("{:.1e}", error), f.wanted = "below 0.1", f.holds = error < 0.1;
  });
}

/// Five standard errors, and what some hundred steps leave of bias.
void check_distribution(std::vector<Finding>& findings, const Sampler& sampler) {
  const MixtureDenoiser data = mixture_data();
  const int64_t count = 20000;
  const double deviation = std::sqrt(data.variance());
  std::vector<double> sigmas = levels(40, 0.01, 400);
  sigmas.push_back(0);
  check(findings, "distribution of the mixture, 400 steps", [&](Finding& f) {
    const auto noise = per_image_noise(5, 0);
    const Tensor begin = noise->draw(at::zeros({1, count}, f64), 1, 1).view({count, 1}) * 40.0 + data.mean();
    // One image of many numbers for the noise, many of one number for the data.
    class Columns final : public Denoiser {
     public:
      explicit Columns(const Denoiser& inner) : inner_(inner) {}
      Estimate denoise(const Tensor& x, double sigma, const Condition& c) const override {
        Estimate d;
        d.x0 = inner_.denoise(x.view({-1, 1}), sigma, c).x0.view_as(x);
        return d;
      }

     private:
      const Denoiser& inner_;
    };
    const Tensor x = run(sampler, Columns(data), begin.view({1, count}), sigmas, 7);
    const double mean = x.mean().item<double>(), variance = x.var().item<double>();
    f.measured = fmt::format("mean {:.3f}, variance {:.3f}", mean, variance);
    f.wanted = fmt::format("mean {:.3f}, variance {:.3f}", data.mean(), data.variance());
    f.holds = std::abs(mean - data.mean()) < 5 * deviation / std::sqrt(double(count)) + 0.02 * deviation &&
              std::abs(variance / data.variance() - 1) < 5 * std::sqrt(2.0 / double(count)) + 0.05;
  });
}

void check_use(std::vector<Finding>& findings, const Sampler& sampler) {
  const MixtureDenoiser data = mixture_data();
  check(findings, "one step to sigma = 0", [&](Finding& f) {
    const Tensor x = run(sampler, data, start(), {noisy, 0});
    f.holds = at::isfinite(x).all().item<bool>() && x.sizes() == start().sizes();
    f.measured = f.holds ? "finite" : "not finite", f.wanted = "finite";
  });
  check(findings, "1000 steps, the last to sigma = 0", [&](Finding& f) {
    std::vector<double> sigmas = levels(noisy, clean, 999);
    sigmas.push_back(0);
    f.holds = at::isfinite(run(sampler, data, start(), sigmas)).all().item<bool>();
    f.measured = f.holds ? "finite" : "not finite", f.wanted = "finite";
  });
  std::vector<double> sigmas = levels(noisy, clean, 15);
  sigmas.push_back(0);
  check(findings, "image i alone and in a batch of 12", [&](Finding& f) {
    const Tensor together = run(sampler, data, start(), sigmas, 3);
    int64_t same = 0;
    for (int64_t i = 0; i < 12; ++i) same += at::equal(run(sampler, data, start().narrow(0, i, 1), sigmas, 3, i), together.narrow(0, i, 1));
    f.measured = fmt::format("{} of 12 equal", same), f.wanted = "12 of 12, bit for bit", f.holds = same == 12;
  });
  check(findings, "4 threads at once", [&](Finding& f) {
    std::vector<Tensor> serial, parallel(4);
    const auto one = [&](uint64_t seed) { return run(sampler, data, start(), sigmas, seed); };
    for (uint64_t i = 0; i < 4; ++i) serial.push_back(one(i));
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < 4; ++i)
      threads.emplace_back([&, i] {
        const at::NoGradGuard no_grad;
        try {
          parallel[i] = one(i);
        } catch (const std::exception&) {  // an undefined result counts against it
        }
      });
    for (std::thread& t : threads) t.join();
    int64_t same = 0;
    for (size_t i = 0; i < 4; ++i) same += parallel[i].defined() && at::equal(serial[i], parallel[i]);
    f.measured = fmt::format("{} of 4 equal", same), f.wanted = "4 of 4, bit for bit", f.holds = same == 4;
  });
}

/// Whether they fall from first to last; the final one may equal the last step.
bool falls(const std::vector<double>& sigmas) {
  for (size_t i = 1; i + 1 < sigmas.size(); ++i)
    if (!(sigmas[i] < sigmas[i - 1])) return false;
  return sigmas.back() <= sigmas[sigmas.size() - 2];
}

}  // namespace

Convergence convergence(const Sampler& sampler, const Denoiser& data) {
  const at::NoGradGuard no_grad;
  const Tensor wanted = exact(data, start(), noisy, clean);
  // Least squares of log error against log steps.
  const std::vector<int64_t> counts{24, 48, 96, 192};
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, error = 0;
  for (const int64_t steps : counts) {
    error = (run(sampler, data, start(), levels(noisy, clean, steps)) - wanted).pow(2).mean().sqrt().item<double>();
    const double x = std::log(double(steps)), y = std::log(std::max(error, 1e-300));
    ++n, sx += x, sy += y, sxx += x * x, sxy += x * y;
  }
  return {-(n * sxy - sx * sy) / (n * sxx - sx * sx), error / wanted.pow(2).mean().sqrt().item<double>()};
}

std::vector<Finding> conform(const Sampler& sampler) {
  const at::NoGradGuard no_grad;
  std::vector<Finding> findings;
  if (follows_the_ode(sampler)) check_path(findings, sampler);
  if (!sampler.traits().consistency) check_distribution(findings, sampler);
  check_use(findings, sampler);
  return findings;
}

std::vector<Finding> conform(const NoiseSchedule& schedule) {
  std::vector<Finding> findings;
  const std::vector<double> times = linspace(schedule.t_min(), schedule.t_max(), 1001);
  check(findings, "sigma rises with t", [&](Finding& f) {
    double last = 0;
    for (const double t : times) f.holds = f.holds && schedule.sigma(t) > last, last = schedule.sigma(t);
    f.measured = fmt::format("from {:.4g} to {:.4g}", schedule.sigma(times.front()), schedule.sigma(times.back()));
    f.wanted = "strictly rising, above 0";
  });
  check(findings, "time(sigma(t)) = t", [&](Finding& f) {
    double worst = 0;
    for (const double t : times) worst = std::max(worst, std::abs(schedule.time(schedule.sigma(t)) - t));
    f.measured = fmt::format("within {:.1e}", worst), f.wanted = "1e-8 of the range", f.holds = worst <= 1e-8 * schedule.t_max();
  });
  check(findings, "sampling starts from N(0, 1) in the network's frame, or from noise alone", [&](Finding& f) {
    double worst = 0;
    for (const double t : times) {
      const double s = schedule.sigma(t), signal = schedule.signal(s);
      worst = std::max(worst, signal < 1 ? std::abs(signal * schedule.start_std(s) - 1) : std::abs(schedule.start_std(s) / s - 1));
    }
    f.measured = fmt::format("within {:.1e}", worst), f.wanted = "1e-9", f.holds = worst < 1e-9;
  });
  return findings;
}

std::vector<Finding> conform(const Spacing& spacing, const NoiseSchedule& schedule) {
  std::vector<Finding> findings;
  const double hi = schedule.sigma(schedule.t_max()) * 1.001, lo = schedule.sigma(schedule.t_min()) / 1.001;
  std::vector<int64_t> counts{1, 10};
  if (schedule.timesteps() > 0) counts.push_back(schedule.timesteps());
  for (const int64_t steps : counts)
    check(findings, fmt::format("{} step{}", steps, steps == 1 ? "" : "s"), [&](Finding& f) {
      f.wanted = fmt::format("{} falling sigmas within the schedule's, or a refusal", steps + 1);
      try {
        const std::vector<double> s = spacing.sigmas(schedule, steps);
        const auto within = [&] { return s.front() <= hi && s[s.size() - 2] >= lo; };
        f.holds = s.size() == size_t(steps) + 1 && falls(s) && within();
        f.measured = s.empty() ? "none" : fmt::format("{}, from {:.4g} to {:.4g}", s.size(), s.front(), s.back());
      } catch (const ConfigError& e) {
        f.measured = fmt::format("refused: {}", e.problems().front().message);
      }
    });
  return findings;
}

std::vector<Finding> conform(const Parameterization& p, const NoiseSchedule& schedule) {
  std::vector<Finding> findings;
  check(findings, "x0 from its own target", [&](Finding& f) {
    double worst = 0;
    for (const double t : linspace(schedule.t_min(), schedule.t_max(), 101)) {
      const double s = schedule.sigma(t), x0 = 0.7, noise = -1.3, x = x0 + s * noise;
      if (p.c_out(s) == 0) continue;  // the boundary of a consistency model, where x0 = x
      const double target = ((1 - p.c_skip(s)) * x0 - p.c_skip(s) * s * noise) / p.c_out(s);
      worst = std::max(worst, std::abs(p.c_skip(s) * x + p.c_out(s) * target - x0) / (1 + s * 1e-3));
    }
    f.measured = fmt::format("within {:.1e}", worst), f.wanted = "1e-9", f.holds = worst < 1e-9;
  });
  check(findings, "the network's input keeps its size", [&](Finding& f) {
    double least = INFINITY, most = 0;
    for (const double t : linspace(schedule.t_min(), schedule.t_max(), 101)) {
      const double s = schedule.sigma(t), size = p.c_in(s, schedule) * std::hypot(0.5, s);
      least = std::min(least, size), most = std::max(most, size);
    }
    f.measured = fmt::format("from {:.3g} to {:.3g} for data of deviation 0.5", least, most), f.wanted = "above 0, finite";
    f.holds = least > 0 && std::isfinite(most);
  });
  return findings;
}

}  // namespace brume
