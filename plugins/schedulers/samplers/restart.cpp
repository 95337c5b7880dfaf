// Restart sampling (Xu et al. 2023, alg. 1): whenever the run comes to the level nearest to t_min, noise raises it to t_max and the inner
// sampler walks down again, `times` times.
//
//   x at t_min -> x at t_max:   x + sqrt(t_max^2 - t_min^2) s_noise noise
//   way down:   sigma_j = (t_max^(1/rho) + j / (n - 1) (t_min^(1/rho) - t_max^(1/rho)))^rho,  j = 0 ... n-1
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/core/warnings.h"

namespace brume::plugins {
namespace {

struct Interval {
  int64_t levels = 3, times = 2;
  double t_min = 0.06, t_max = 0.3;
  void declare(Fields& f) {
    f.field("levels", levels, "noise levels of a way down, both ends included", at_least(2));
    f.field("times", times, "ways down", at_least(1));
    f.field("t_min", t_min, "sigma to go up from; the nearest level of the run is taken", more_than(0));
    f.field("t_max", t_max, "sigma to go up to", more_than(0));
    f.require(t_min < t_max, "t_min", "must be less than t_max");
  }
};

class Restart final : public Sampler {
 public:
  struct Options {
    std::shared_ptr<const Sampler> sampler;
    std::vector<Interval> intervals{{}};
    double rho = 7, s_noise = 1;
    void declare(Fields& f) {
      f.field("sampler", sampler, "the sampler that walks down", "heun");
      f.sections("intervals", intervals, "the intervals of sigma that are walked again");
      f.field("rho", rho, "curvature of the levels within an interval", at_least(1));
      f.field("s_noise", s_noise, "standard deviation of the added noise", more_than(0));
      f.unused(intervals.empty(), {"rho", "s_noise"}, "there are no intervals");
    }
  };
  explicit Restart(const Options& o) : o_(o) {}
  SamplerTraits traits() const override {
    const SamplerTraits inner = o_.sampler->traits();
    return {.order = o_.intervals.empty() ? inner.order : 0,
            .variance = inner.variance,
            .keeps_direction = inner.keeps_direction,
            .takes_gradient = inner.takes_gradient};
  }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    if (!o_.intervals.empty() && sigmas.front() < sigmas.back()) throw ConfigError("restart adds noise, so it cannot invert");
    const int64_t steps = int64_t(sigmas.size()) - 1;
    const std::vector<std::vector<size_t>> at = places(sigmas);
    int64_t count = steps, done = 0;
    for (const auto& here : at)
      for (const size_t k : here) count += o_.intervals[k].times * (o_.intervals[k].levels - 1);
    const auto walk = [&](const std::vector<double>& levels) {
      Run part{run.condition, run.noise, {}, run.schedule};
      part.observer = [&](const Step& s) { return !run.observer || run.observer({done + s.index, count, s.sigma, s.x, s.x0}); };
      x = o_.sampler->sample(denoiser, x, levels, part);
      done += int64_t(levels.size()) - 1;
    };
    size_t first = 0;
    for (size_t i = 1; i <= size_t(steps); ++i) {
      if (at[i].empty() && i < size_t(steps)) continue;
      walk({sigmas.begin() + int64_t(first), sigmas.begin() + int64_t(i) + 1});
      first = i;
      for (const size_t k : at[i])
        for (int64_t time = 0; time < o_.intervals[k].times; ++time) {
          const double low = sigmas[i], high = o_.intervals[k].t_max;
          x = x + run.noise.draw(x, low, high) * (o_.s_noise * std::sqrt((high - low) * (high + low)));
          walk(way(high, low, o_.intervals[k].levels));
        }
    }
    return x;
  }

 private:
  std::vector<double> way(double high, double low, int64_t levels) const {
    std::vector<double> way{high};
    const double a = std::pow(high, 1 / o_.rho), b = std::pow(low, 1 / o_.rho);
    for (int64_t j = 1; j + 1 < levels; ++j) way.push_back(std::pow(a + double(j) / double(levels - 1) * (b - a), o_.rho));
    way.push_back(low);
    return way;
  }
  /// Returns, for each level of the run, the intervals that begin there.
  std::vector<std::vector<size_t>> places(const std::vector<double>& sigmas) const {
    std::vector<std::vector<size_t>> at(sigmas.size());
    for (size_t k = 0; k < o_.intervals.size(); ++k) {
      const Interval& wanted = o_.intervals[k];
      size_t nearest = 0;
      for (size_t i = 1; i < sigmas.size(); ++i)
        if (sigmas[i] > 0 && std::abs(sigmas[i] - wanted.t_min) < std::abs(sigmas[nearest] - wanted.t_min)) nearest = i;
      if (nearest > 0 && sigmas[nearest] < wanted.t_max)
        at[nearest].push_back(k);
      else
        warn(fmt::format("restart: the run has no level below t_max {} near t_min {}, so the interval has no effect", wanted.t_max,
                         wanted.t_min));
    }
    return at;
  }
  Options o_;
};

}  // namespace

void register_sampler_restart(Registry& r) {
  r.add<Sampler, Restart>("restart", "restart sampling: goes back up by noise and walks down again");
}

}  // namespace brume::plugins
