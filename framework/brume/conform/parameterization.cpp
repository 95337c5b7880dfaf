#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/conform/conform.h"
#include "brume/core/codes.h"

namespace brume {
namespace {

/// Returns 1e-4 to 1e5 in steps of a tenth.
std::vector<double> sigmas() {
  std::vector<double> all;
  for (double s = 1e-4; s < 1e5; s *= 1.1) all.push_back(s);
  return all;
}

/// Returns F* of the interface.
double target(const Parameterization& p, double x0, double noise, double sigma) {
  return ((1 - p.c_skip(sigma)) * x0 - p.c_skip(sigma) * sigma * noise) / p.c_out(sigma);
}

/// Returns the least sigma at which the network decides: 0 for most, 100 times the boundary of a consistency model, where c_out is 0.
double begin_of(const Parameterization& p) {
  const double sign = p.c_out(1e3);
  double begin = 0;
  for (const double s : sigmas())
    if (!(p.c_out(s) * sign > 0)) begin = 100 * s;
  return begin;
}

void check_round_trip(std::vector<Finding>& findings, const Parameterization& p) {
  const Law law{"x0 from its own target", "c_skip x + c_out F* is x0, for every image, noise and sigma", "Karras et al. 2022, eq. 7 and 8"};
  check(findings, law, [&](Finding& f) {
    double worst = 0, at = 0;
    for (const double s : sigmas())
      for (const auto& [x0, noise] : {std::pair(0.7, -1.3), std::pair(-1.0, 0.01), std::pair(0.0, 2.0)}) {
        if (p.c_out(s) == 0) continue;  // at the boundary of a consistency model, x0 = x
        const double back = p.c_skip(s) * (x0 + s * noise) + p.c_out(s) * target(p, x0, noise, s);
        const double error = std::abs(back - x0) / std::max(1.0, s);
        if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error, at = s;
      }
    f.measured = fmt::format("within {:.1e}, worst at sigma = {:.4g}", worst, at), f.wanted = "1e-11", f.holds = worst < 1e-11;
  });
}

/// Returns the standard deviation of F* for images of standard deviation `data`.
double target_size(const Parameterization& p, double data, double sigma) {
  return std::hypot(data * target(p, 1, 0, sigma), target(p, 0, 1, sigma));
}

struct Sizes {
  double least = INFINITY, most = 0, at_least = 0, at_most = 0;
  double ratio() const { return most / least; }
};

/// Returns the sizes of the target, times sigma^power.
Sizes target_sizes(const Parameterization& p, double data, double power) {
  Sizes r;
  const double begin = begin_of(p);
  for (const double s : sigmas()) {
    if (s < begin) continue;
    const double size = target_size(p, data, s) * std::pow(s, power);
    if (!(size >= r.least)) r.least = std::isnan(size) ? 0 : size, r.at_least = s;
    if (!(size <= r.most)) r.most = std::isnan(size) ? INFINITY : size, r.at_most = s;
  }
  return r;
}

void check_target(std::vector<Finding>& findings, const Parameterization& p) {
  const Law law{"a target of one size",
                "For images of some standard deviation, F* has about the same one at every sigma, or that of the score, 1 / sigma",
                "Karras et al. 2022, app. B.6; Song et al. 2021, eq. 7"};
  check(findings, law, [&](Finding& f) {
    Sizes best;
    best.most = INFINITY, best.least = 1;
    double data = 0;
    for (const double power : {0.0, 1.0})
      for (double sd = 0.05; sd < 20; sd *= 1.1) {
        const Sizes r = target_sizes(p, sd, power);
        if (r.ratio() < best.ratio() || data == 0) best = r, data = sd;
      }
    f.measured = fmt::format("from {:.3g} at sigma = {:.3g} to {:.3g} at sigma = {:.3g}, for images of {:.2g}", best.least, best.at_least,
                             best.most, best.at_most, data);
    f.wanted = "a ratio below 1.4", f.holds = best.ratio() < 1.4;
  });
}

void check_limits(std::vector<Finding>& findings, const Parameterization& p) {
  const Law small{"limit at sigma = 0", "Without noise, x is the estimate (c_skip = 1, c_out = 0), or the network alone is (c_skip = 0)",
                  "Karras et al. 2022, app. B.6"};
  check(findings, small, [&](Finding& f) {
    const double s = std::max(1e-7, begin_of(p) / 100), skip = p.c_skip(s), out = p.c_out(s);
    f.measured = fmt::format("c_skip = {:.4g}, c_out = {:.4g} at sigma = {:.2g}", skip, out, s), f.wanted = "1 and 0, or 0 and 0.1 to 10";
    f.holds = (std::abs(skip - 1) < 1e-3 && std::abs(out) < 0.05) || (skip == 0 && std::abs(out) >= 0.1 && std::abs(out) <= 10);
  });
  check(findings, {"finite from sigma = 1e-4 to 1e5", "c_skip and c_out are finite, and c_out has one sign above sigma = 1"},
        [&](Finding& f) {
          f.measured = f.wanted = "finite, one sign";
          const double sign = p.c_out(1e3);
          for (const double s : sigmas())
            if (f.holds && !(std::isfinite(p.c_skip(s)) && std::isfinite(p.c_out(s)) && (s < 1 || p.c_out(s) * sign > 0))) {
              f.holds = false;
              f.measured = fmt::format("c_skip = {:.4g}, c_out = {:.4g} at sigma = {:.4g}", p.c_skip(s), p.c_out(s), s);
            }
        });
}

void check_input(std::vector<Finding>& findings, const Parameterization& p, const NoiseSchedule& schedule) {
  const Law law{"the network's input keeps its size",
                "c_in x is above 0 and finite, and of about one size if the schedule preserves variance", "Karras et al. 2022, app. B.6"};
  check(findings, law, [&](Finding& f) {
    double least = INFINITY, most = 0;
    for (const double s : sigmas()) {
      const double size = p.c_in(s, schedule) * std::hypot(0.5, s);
      if (!(size >= least)) least = std::isnan(size) ? 0 : size;
      if (!(size <= most)) most = std::isnan(size) ? INFINITY : size;
    }
    const bool preserving = schedule.signal(10) * std::hypot(1, 10) < 1.5;
    f.measured = fmt::format("from {:.3g} to {:.3g} for images of 0.5", least, most);
    f.wanted = preserving ? "within [0.1, 10]" : "above 0, finite";
    f.holds = least > 0 && std::isfinite(most) && (!preserving || (least >= 0.1 && most <= 10));
  });
}

}  // namespace

std::vector<Finding> conform(const Parameterization& parameterization, const NoiseSchedule& schedule) {
  std::vector<Finding> findings;
  check_round_trip(findings, parameterization);
  check_target(findings, parameterization);
  check_limits(findings, parameterization);
  if (!of_codes(parameterization)) check_input(findings, parameterization, schedule);  // codes have no size
  return findings;
}

}  // namespace brume
