#include "brume/numerics/timesteps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/numerics/beta_table.h"

namespace brume {

void declare_final(Fields& f, FinalSigma& value) {
  f.choice("final", value, "last sigma of the run: 0, or the schedule's smallest sigma",
           {{"zero", FinalSigma::zero}, {"minimum", FinalSigma::minimum}});
}

void declare_inclusive(Fields& f, bool& value) {
  f.field("inclusive", value,
          "the lowest level of the grid is a step; false: it is left out, and the grid has one level more (DPM-Solver)");
}

void declare_clip(Fields& f, std::optional<double>& sigma_max) {
  f.field("sigma_max", sigma_max, "leave out the training times with a larger sigma; null = none (DPM-Solver's lambda_min_clipped)",
          more_than(0));
}

double clipped_time(const NoiseSchedule& schedule, const std::optional<double>& sigma_max) {
  if (!sigma_max) return schedule.t_max();
  if (*sigma_max <= schedule.sigma(schedule.t_min()))
    throw ConfigError(fmt::format("sigma_max {} leaves no training time: the schedule's sigmas begin at {:.6g}", *sigma_max,
                                  schedule.sigma(schedule.t_min())));
  const double last = schedule.time(*sigma_max);
  return schedule.timesteps() > 0 ? std::floor(last + 1e-9) : last;
}

void SigmaRange::declare(Fields& f) {
  f.field("sigma_min", sigma_min, "last sigma before the final one; null = the schedule's smallest", more_than(0));
  f.field("sigma_max", sigma_max, "first sigma; null = the schedule's largest", more_than(0));
  f.require(!sigma_min || !sigma_max || *sigma_min < *sigma_max, "sigma_min", "must be less than sigma_max");
}

SigmaRange::Ends SigmaRange::of(const NoiseSchedule& schedule) const {
  // Beyond its ends a schedule knows no time, and the network would receive that of the end.
  const std::pair<const char*, std::optional<double>> bounds[] = {{"sigma_max", sigma_max}, {"sigma_min", sigma_min}};
  for (const auto& [key, sigma] : bounds)
    if (sigma) require_within(schedule, {*sigma}, key);
  const double hi = sigma_max.value_or(schedule.sigma(schedule.t_max())), lo = sigma_min.value_or(schedule.sigma(schedule.t_min()));
  if (lo >= hi) throw ConfigError(fmt::format("sigma_min {} is not less than sigma_max {}", lo, hi));
  return {lo, hi};
}

void EndsOf::declare(Fields& f) { f.field("spacing", spacing, "the spacing whose first and last step these are", "leading"); }

void SigmaGrid::declare(Fields& f) {
  range.declare(f);
  f.section("ends_of", ends_of,
            "sigma_min and sigma_max, if not given, are the ends of the steps of another spacing instead of the schedule's");
  declare_inclusive(f, inclusive);
  declare_final(f, final_sigma);
}

std::vector<double> SigmaGrid::sigmas(const NoiseSchedule& schedule, int64_t steps,
                                      const std::function<double(double, double, double)>& level) const {
  SigmaRange within = range;
  if (ends_of) {
    const std::vector<double> other = ends_of->spacing->sigmas(schedule, steps);
    within.sigma_max = range.sigma_max.value_or(other.front());
    within.sigma_min = range.sigma_min.value_or(other.at(other.size() - 2));  // the last is final_sigma
    if (steps == 1 && inclusive) return with_final({*within.sigma_max}, schedule, final_sigma);
  }
  const auto [lo, hi] = within.of(schedule);
  std::vector<double> sigmas;
  for (const double r : linspace(1, 0, steps + !inclusive)) sigmas.push_back(level(r, lo, hi));
  if (!inclusive) sigmas.pop_back();
  return with_final(std::move(sigmas), schedule, final_sigma);
}

void require_within(const NoiseSchedule& schedule, const std::vector<double>& sigmas, const char* name) {
  const double hi = schedule.sigma(schedule.t_max()), lo = schedule.sigma(schedule.t_min()), slack = 1.001;
  for (const double s : sigmas)
    if (s > hi * slack || s < lo / slack)
      throw ConfigError(fmt::format("{} {} is outside the schedule's [{:.6g}, {:.6g}]", name, s, lo, hi));
}

std::vector<double> log_interpolated(const std::vector<double>& levels, int64_t count) {
  std::vector<double> sampled;
  for (const double place : linspace(0, double(levels.size() - 1), count)) {
    const size_t i = std::min(size_t(place), levels.size() - 2);
    const double fraction = place - double(i);
    sampled.push_back(std::exp(std::log(levels[i]) * (1 - fraction) + std::log(levels[i + 1]) * fraction));
  }
  return sampled;
}

std::vector<double> with_final(std::vector<double> sigmas, const NoiseSchedule& schedule, FinalSigma final_sigma) {
  sigmas.push_back(final_sigma == FinalSigma::zero ? 0 : schedule.sigma(schedule.t_min()));
  return sigmas;
}

std::vector<double> distinct_levels(std::vector<double> sigmas) {
  if (!sigmas.empty()) sigmas.erase(std::unique(sigmas.begin(), sigmas.end() - 1), sigmas.end() - 1);
  return sigmas;
}

void declare_merge(Fields& f, bool& value) {
  f.field("merge", value, "leave out levels that coincide, and take fewer steps (ComfyUI); false: refuse that number of steps");
}

std::vector<double> merged_levels(std::vector<double> sigmas, bool merge) {
  const size_t before = sigmas.size();
  sigmas = distinct_levels(std::move(sigmas));
  if (merge || sigmas.size() == before) return sigmas;
  throw ConfigError(fmt::format("{} are more than this spacing has levels for; it has {} distinct ones, which merge: true takes",
                                counted(before - 1, "step"), sigmas.size() - 1));
}

std::vector<double> sigmas_at(const NoiseSchedule& schedule, const std::vector<double>& times, FinalSigma final_sigma) {
  std::vector<double> sigmas;
  for (size_t i = 0; i < times.size(); ++i) {
    if (times[i] < schedule.t_min() || times[i] > schedule.t_max())
      throw ConfigError(fmt::format("time {} is outside the schedule's [{}, {}]", times[i], schedule.t_min(), schedule.t_max()));
    if (i > 0 && times[i] >= times[i - 1])
      throw ConfigError(schedule.timesteps() > 0 ? fmt::format("{} are more than this spacing can take from {} training times",
                                                               counted(times.size(), "step"), schedule.timesteps())
                                                 : fmt::format("time {} does not come before {}", times[i], times[i - 1]));
    sigmas.push_back(schedule.sigma(times[i]));
  }
  return with_final(std::move(sigmas), schedule, final_sigma);
}

}  // namespace brume
