#include "brume/conform/equal_calls.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>

#include <atomic>
#include <optional>
#include <stdexcept>

#include "brume/conform/exact_denoisers.h"
#include "brume/conform/exact_models.h"
#include "brume/conform/sampler_runs.h"
#include "brume/core/codes.h"
#include "brume/core/warnings.h"

namespace brume {
namespace {

constexpr double noisy = 40, clean = 0.01;
constexpr int64_t points = 20000;
const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);

/// Thrown instead of a call that the budget does not have.
struct BudgetSpent {};

/// Counts the calls of a denoiser, and ends a run that makes too many.
class CountingDenoiser final : public Denoiser {
 public:
  explicit CountingDenoiser(const Denoiser& inner, int64_t most = std::numeric_limits<int64_t>::max()) : inner_(inner), most_(most) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (calls_ == most_) throw BudgetSpent{};
    ++calls_;
    return inner_.denoise(x, sigma, condition);
  }
  int64_t calls() const { return calls_; }

 private:
  const Denoiser& inner_;
  int64_t most_;
  mutable std::atomic<int64_t> calls_ = 0;
};

/// E[x0 | x] of data N(0, 1), of any shape, with the variance that a model may have learned.
class UnitGaussian final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = x / (1 + sigma * sigma);
    d.variance = x * 0;
    return d;
  }
};

/// Returns the calls of a run; nothing if there are more than `most`.
std::optional<int64_t> counted_calls(const Sampler& sampler, const std::vector<double>& sigmas, const NoiseSchedule& schedule,
                                     int64_t most) {
  const UnitGaussian data;
  const CountingDenoiser counting(data, most);
  const Condition none;
  const auto noise = per_image_noise(1, 0);
  Run run{none, *noise, {}, &schedule};
  try {
    sampler.sample(counting, at::full({1, 2, 1, 1}, sigmas.front(), f64), sigmas, run);
  } catch (const BudgetSpent&) {
    return {};
  }
  return counting.calls();
}

/// Returns the quantiles of the noisy data in the middle of equal shares, [points], in increasing order.
Tensor quantiles(double sigma) {
  const MixtureDenoiser data = mixture_data();
  std::vector<double> values;
  for (int64_t i = 0; i < points; ++i) values.push_back(data.quantile((double(i) + 0.5) / double(points), sigma));
  return at::tensor(values, f64);
}

/// Returns the Wasserstein-1 distance of samples, [points], to the data: the mean difference of the quantiles.
double distance(const Tensor& samples) {
  static const Tensor exact = quantiles(0);
  return (std::get<0>(at::sort(samples)) - exact).abs().mean().item<double>();
}

/// Returns the calls and the error of a run.
EqualCalls measured(const Sampler& sampler, int64_t steps) {
  static const Tensor start = quantiles(noisy);
  const MixtureDenoiser data = mixture_data();
  const PointsAsImage image(data);
  const CountingDenoiser counting(image);
  const Tensor x = run_sampler(sampler, counting, start.view({1, points}), curved_levels_to_zero(noisy, clean, steps), 7);
  return {.steps = steps, .calls = counting.calls(), .error = distance(x.flatten())};
}

}  // namespace

StepsWithin steps_within(const Sampler& sampler, const StepLevels& levels, const NoiseSchedule& schedule, int64_t budget) {
  if (sampler.traits().own_count) throw std::logic_error("steps_within: the sampler chooses the number of its steps");
  const at::NoGradGuard no_grad;
  const WarningScope quiet([](const std::string&) {});  // most of these runs are only counted
  StepsWithin best;
  int64_t too_many = budget + 1;
  while (too_many - best.steps > 1) {
    const int64_t steps = best.steps + (too_many - best.steps) / 2;
    if (const auto calls = counted_calls(sampler, levels(steps), schedule, budget))
      best = {steps, *calls};
    else
      too_many = steps;
  }
  return best;
}

std::string unsuited_for_equal_calls(const Sampler& sampler) {
  const SamplerTraits traits = sampler.traits();
  if (of_codes(sampler)) return "works on codes, and the data are continuous";
  if (traits.consistency) return "needs a consistency model, whose estimates are points of the data and no means";
  if (traits.variance != LearnedVariance::none) return "needs a model that has learned its variance";
  return "";
}

std::vector<EqualCalls> equal_calls(const Sampler& sampler, const std::vector<int64_t>& budgets) {
  const at::NoGradGuard no_grad;
  if (sampler.traits().own_count) {
    EqualCalls own = measured(sampler, 32);
    own.steps = 0;
    return {own};
  }
  const StepLevels levels = [](int64_t steps) { return curved_levels_to_zero(noisy, clean, steps); };
  std::vector<EqualCalls> all;
  for (const int64_t budget : budgets) {
    const StepsWithin within = steps_within(sampler, levels, *cosine_times(), budget);
    all.push_back(within.steps == 0 ? EqualCalls{} : measured(sampler, within.steps));
    all.back().budget = budget;
  }
  return all;
}

}  // namespace brume
