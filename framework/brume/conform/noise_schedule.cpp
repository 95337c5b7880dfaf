#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/conform/conform.h"

namespace brume {
namespace {

/// The largest of some deviations, and its place. A deviation that is not a number is the largest.
struct Worst {
  double value = 0, at = 0;
  void see(double deviation, double where) {
    if (!(deviation <= value)) value = std::isnan(deviation) ? INFINITY : deviation, at = where;
  }
  std::string text(const char* input) const { return fmt::format("within {:.1e}, worst at {} = {:.4g}", value, input, at); }
};

/// Returns the ends, the integers of a discrete schedule, and 2000 times between.
std::vector<double> times_of(const NoiseSchedule& schedule) {
  const double lo = schedule.t_min(), hi = schedule.t_max();
  std::vector<double> times;
  for (int i = 0; i <= 2000; ++i) times.push_back(lo + (hi - lo) * i / 2000);
  for (int64_t i = 0; i < schedule.timesteps(); ++i) times.push_back(double(i));
  std::sort(times.begin(), times.end());
  times.erase(std::unique(times.begin(), times.end()), times.end());
  return times;
}

void check_times(std::vector<Finding>& findings, const NoiseSchedule& schedule, const std::vector<double>& times) {
  check(findings, {"sigma rises with t", "sigma(t) is finite, above 0 and strictly increasing"}, [&](Finding& f) {
    f.measured = fmt::format("from {:.4g} to {:.4g}", schedule.sigma(times.front()), schedule.sigma(times.back()));
    f.wanted = "strictly rising, above 0";
    double last = 0;
    for (const double t : times) {
      const double sigma = schedule.sigma(t);
      if (f.holds && !(std::isfinite(sigma) && sigma > last)) {
        f.holds = false;
        f.measured = fmt::format("sigma({:.6g}) = {:.6g} after {:.6g}", t, sigma, last);
      }
      last = sigma;
    }
  });
  check(findings, {"time(sigma(t)) = t", "time() is the inverse of sigma()"}, [&](Finding& f) {
    Worst worst;
    for (const double t : times) worst.see(std::abs(schedule.time(schedule.sigma(t)) - t), t);
    f.measured = worst.text("t"), f.wanted = "1e-8 of the range";
    f.holds = worst.value <= 1e-8 * std::max(schedule.t_max(), schedule.t_max() - schedule.t_min());
  });
  check(findings, {"time is clamped", "time() of a sigma outside the range is the nearest end of the range"}, [&](Finding& f) {
    const double lo = schedule.sigma(schedule.t_min()), hi = schedule.sigma(schedule.t_max());
    const double below = schedule.time(lo / 2), above = schedule.time(hi * 2);
    f.measured = fmt::format("{:.6g} and {:.6g}, of sigma = {:.4g} and {:.4g}", below, above, lo / 2, hi * 2);
    f.wanted = fmt::format("{:.6g} and {:.6g}", schedule.t_min(), schedule.t_max());
    f.holds = below == schedule.t_min() && above == schedule.t_max();
  });
}

void check_discrete(std::vector<Finding>& findings, const NoiseSchedule& schedule) {
  const int64_t count = schedule.timesteps();
  if (count == 0) return;
  check(findings, {"training times are 0 ... T - 1", "A discrete schedule of T times has the range [0, T - 1]"}, [&](Finding& f) {
    f.measured = fmt::format("[{:.6g}, {:.6g}]", schedule.t_min(), schedule.t_max()), f.wanted = fmt::format("[0, {}]", count - 1);
    f.holds = schedule.t_min() == 0 && schedule.t_max() == double(count - 1);
  });
  check(findings, {"log sigma between times", "Between its integers, log sigma of a discrete schedule is linear"}, [&](Finding& f) {
    Worst worst;
    for (int64_t i = 0; i + 1 < count; ++i) {
      const double a = std::log(schedule.sigma(double(i))), b = std::log(schedule.sigma(double(i + 1)));
      worst.see(std::abs(std::log(schedule.sigma(double(i) + 0.25)) - 0.75 * a - 0.25 * b), double(i) + 0.25);
    }
    f.measured = worst.text("t"), f.wanted = "1e-10", f.holds = worst.value < 1e-10;
  });
}

void check_frame(std::vector<Finding>& findings, const NoiseSchedule& schedule, const std::vector<double>& times) {
  const Law start{"standard deviation of the start",
                  "alpha times the standard deviation of the start is 1; if alpha is 1, the start is the noise alone",
                  "Karras et al. 2022, table 1"};
  check(findings, start, [&](Finding& f) {
    Worst worst;
    for (const double t : times) {
      const double s = schedule.sigma(t), signal = schedule.signal(s);
      worst.see(std::abs(signal < 1 ? signal * schedule.start_std(s) - 1 : schedule.start_std(s) / s - 1), s);
    }
    f.measured = worst.text("sigma"), f.wanted = "1e-9", f.holds = worst.value < 1e-9;
  });
  const Law rates{"signal falls, noise rises", "alpha lies in (0, 1] and does not rise with sigma; alpha sigma does not fall",
                  "Kingma et al. 2021, sec. 3.1"};
  check(findings, rates, [&](Finding& f) {
    double signal = 1, noise = 0;
    f.wanted = "monotone, within (0, 1]";
    for (const double t : times) {
      const double s = schedule.sigma(t), alpha = schedule.signal(s);
      if (f.holds && !(alpha > 0 && alpha <= signal * (1 + 1e-12) && alpha * s >= noise * (1 - 1e-12))) {
        f.holds = false;
        f.measured = fmt::format("alpha = {:.6g} after {:.6g}, alpha sigma = {:.6g} after {:.6g}, at sigma = {:.4g}", alpha, signal,
                                 alpha * s, noise, s);
      }
      signal = alpha, noise = alpha * s;
    }
    if (f.holds) f.measured = fmt::format("alpha to {:.3g}, alpha sigma to {:.3g}", signal, noise);
  });
}

}  // namespace

std::vector<Finding> conform(const NoiseSchedule& schedule) {
  std::vector<Finding> findings;
  const std::vector<double> times = times_of(schedule);
  check_times(findings, schedule, times);
  check_discrete(findings, schedule);
  check_frame(findings, schedule, times);
  return findings;
}

}  // namespace brume
