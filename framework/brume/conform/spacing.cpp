#include <fmt/format.h>

#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/conform/conform.h"

namespace brume {
namespace {

/// Returns what is wrong with the sigmas of a run of `steps`; "" if nothing is.
std::string fault_of(const std::vector<double>& s, const NoiseSchedule& schedule, int64_t steps) {
  const double lo = schedule.sigma(schedule.t_min()), hi = schedule.sigma(schedule.t_max());
  if (s.size() != size_t(steps) + 1) return counted(s.size(), "sigma");
  for (size_t i = 0; i < s.size(); ++i) {
    const bool last = i + 1 == s.size();
    if (!std::isfinite(s[i])) return fmt::format("sigma {} is {}", i, s[i]);
    if (i > 0 && !(s[i] < s[i - 1] || (last && s[i] == s[i - 1]))) return fmt::format("sigma {} is {:.6g} after {:.6g}", i, s[i], s[i - 1]);
    if (!last && !(s[i] > 0 && s[i] >= lo * (1 - 1e-9) && s[i] <= hi * (1 + 1e-9)))
      return fmt::format("sigma {} is {:.6g}, outside [{:.4g}, {:.4g}]", i, s[i], lo, hi);
  }
  if (s.back() != 0 && std::abs(s.back() / lo - 1) > 1e-9) return fmt::format("the last sigma is {:.6g}", s.back());
  return "";
}

void check_count(std::vector<Finding>& findings, const Spacing& spacing, const NoiseSchedule& schedule, int64_t steps) {
  const Law law{
      counted(steps, "step"),
      "N steps are N + 1 descending sigmas within the schedule's range, the last of them 0 or the smallest; or the number is refused"};
  check(findings, law, [&](Finding& f) {
    f.wanted = fmt::format("{} descending sigmas, or a refusal", steps + 1);
    try {
      const std::vector<double> s = spacing.sigmas(schedule, steps);
      const std::string fault = fault_of(s, schedule, steps);
      f.holds = fault.empty();
      f.measured = f.holds ? fmt::format("{}, from {:.4g} to {:.4g}", s.size(), s.front(), s.back()) : fault;
    } catch (const ConfigError& e) {
      f.measured = fmt::format("refused: {}", e.problems().front().message);
    }
  });
}

/// Returns the largest step in log sigma down to `end`.
double largest_step(const std::vector<double>& s, double end) {
  double largest = 0;
  for (size_t i = 1; i < s.size() && s[i] >= end * (1 - 1e-9); ++i) largest = std::max(largest, std::log(s[i - 1] / s[i]));
  return largest;
}

void check_refinement(std::vector<Finding>& findings, const Spacing& spacing, const NoiseSchedule& schedule) {
  const Law law{"more steps are smaller steps",
                "Four times the steps cover no less of the range, and over that of the fewer the largest step in log sigma is smaller"};
  check(findings, law, [&](Finding& f) {
    f.wanted = "the same range or more, a smaller largest step";
    try {
      const std::vector<double> coarse = spacing.sigmas(schedule, 5), fine = spacing.sigmas(schedule, 20);
      const double from = coarse.at(0), to = coarse.at(4), before = largest_step(coarse, to), after = largest_step(fine, to);
      f.holds = after < before && fine.at(0) >= from * (1 - 1e-9) && fine.at(19) <= to * (1 + 1e-9);
      f.measured = fmt::format("largest step {:.3g} of 5, {:.3g} of 20; from {:.4g} to {:.4g}, then from {:.4g} to {:.4g}", before, after,
                               from, to, fine.at(0), fine.at(19));
    } catch (const ConfigError& e) {
      f.measured = fmt::format("refused: {}", e.problems().front().message);
    }
  });
}

}  // namespace

std::vector<Finding> conform(const Spacing& spacing, const NoiseSchedule& schedule) {
  std::vector<Finding> findings;
  std::vector<int64_t> counts{1, 2, 10, 50};
  if (schedule.timesteps() > 0)
    for (const int64_t steps : {schedule.timesteps(), 3 * schedule.timesteps()}) counts.push_back(steps);
  for (const int64_t steps : counts) check_count(findings, spacing, schedule, steps);
  check_refinement(findings, spacing, schedule);
  check(findings, {"the same each time", "A spacing is a function of the schedule and the number of steps"}, [&](Finding& f) {
    f.wanted = "equal";
    try {
      f.holds = spacing.sigmas(schedule, 10) == spacing.sigmas(schedule, 10);
      f.measured = f.holds ? "equal" : "two calls differ";
    } catch (const ConfigError& e) {
      f.measured = fmt::format("refused: {}", e.problems().front().message);
    }
  });
  return findings;
}

}  // namespace brume
