#include "plot/sampler_paths.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "brume/config/errors.h"
#include "program/program.h"

namespace brume::tools {
namespace {

Point place_of(const Tensor& x, double sigma, int64_t row = 0) {
  const double scale = 1 / std::sqrt(1 + sigma * sigma);
  return {x[row][0].item<double>() * scale, x[row][1].item<double>() * scale};
}

/// Returns the sigmas of `steps` steps that end above 0: the step to 0 is x0 itself for every sampler, and hides its order.
std::vector<double> noisy_sigmas(const PathSetting& setting, int64_t steps) {
  std::vector<double> sigmas = setting.spacing->sigmas(*setting.schedule, steps + 1);
  if (sigmas.back() > 0) return setting.spacing->sigmas(*setting.schedule, steps);
  sigmas.pop_back();
  return sigmas;
}

}  // namespace

Tensor PathSetting::start(int64_t points, double sigma) const {
  const Tensor like = at::empty({points, 2}, at::kDouble);
  return per_image_noise(seed, 0)->draw(like, sigma, sigma) * schedule->start_std(sigma);
}

Tensor PathSetting::sample(const Sampler& sampler, const Denoiser& denoiser, const Tensor& x, const std::vector<double>& sigmas,
                           int64_t first, std::function<bool(const Step&)> observer) const {
  const Condition none;
  const auto noise = per_image_noise(seed + 1, first);
  Run run{none, *noise, std::move(observer), schedule.get()};
  return sampler.sample(denoiser, x, sigmas, run);
}

SamplerPaths paths_of(const Sampler& sampler, const PathSetting& setting, int64_t steps) {
  constexpr int64_t followed = 8, points = 120;
  if (sampler.traits().variance != LearnedVariance::none) throw ConfigError("needs a model that has learned its variance");
  const std::vector<double> sigmas = setting.spacing->sigmas(*setting.schedule, steps);
  const Tensor start = setting.start(points, sigmas.front());
  SamplerPaths paths;
  for (int64_t i = 0; i < followed; ++i) {  // one by one: what an adaptive sampler reports of a batch are its points in turn
    std::vector<PathMoment> way;
    const auto observer = [&](const Step& step) {
      way.push_back({step.sigma, place_of(step.x, step.sigma)});
      return !interrupted.load();
    };
    const Tensor end = setting.sample(sampler, setting.data, start.narrow(0, i, 1), sigmas, i, observer);
    way.push_back({sigmas.back(), place_of(end, sigmas.back())});
    paths.points.push_back(std::move(way));
  }
  const Tensor ends = setting.sample(sampler, setting.data, start, sigmas);
  for (int64_t i = 0; i < points; ++i) paths.samples.push_back(place_of(ends, sigmas.back(), i));
  return paths;
}

const Tensor& ExactEnds::end(const Tensor& x, double from, double to) {
  Tensor& known = ends_[{from, to}];
  if (!known.defined()) known = exact_flow(setting_.data, x, from, to);
  return known;
}

bool has_order(const Sampler& sampler) { return sampler.traits().order > 0 && !sampler.traits().consistency; }

std::vector<SamplerCost> costs_of(const Sampler& sampler, const PathSetting& setting, ExactEnds& exact) {
  constexpr int64_t points = 64;
  std::vector<SamplerCost> costs;
  for (const int64_t steps : {4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128}) {
    if (interrupted.load()) throw Interrupted();
    const std::vector<double> sigmas = noisy_sigmas(setting, steps);
    const Tensor x = setting.start(points, sigmas.front());
    const Counted counted(setting.data);
    const Tensor wrong = setting.sample(sampler, counted, x, sigmas) - exact.end(x, sigmas.front(), sigmas.back());
    const double error = std::sqrt(wrong.square().sum(1).mean().item<double>());
    // One that chooses its own steps may not care how many it was given.
    if (costs.empty() || costs.back().calls != counted.calls(points)) costs.push_back({steps, counted.calls(points), error});
  }
  return costs;
}

}  // namespace brume::tools
