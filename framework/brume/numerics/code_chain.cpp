#include "brume/numerics/code_chain.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>
#include <ATen/ops/xlogy.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/core/rows.h"
#include "brume/numerics/noising.h"

namespace brume {
namespace {

constexpr double least = 1e-30;  // stands for a probability of 0 under a logarithm

/// Returns f(step) for each image, [B, 1, 1, 1], to be multiplied with `like`.
template <class F>
Tensor each_step(const std::vector<CodeStep>& steps, const Tensor& like, const F& f) {
  std::vector<double> values;
  for (const CodeStep& s : steps) values.push_back(f(s));
  return each_image(values, like, [](double v) { return v; });
}

/// Returns the codes of latents that may be between them, as enlarged ones are.
Tensor nearest_codes(const Tensor& known, at::ScalarType type) { return one_hot(known.argmax(1), known.size(1), type); }

/// Returns q(x_t | x_s) of each x_s, at the given x_t, for the uniform kernel.
Tensor likelihood(const Tensor& x, const std::vector<CodeStep>& steps) {
  const double count = double(x.size(1));
  return x * each_step(steps, x, [](const CodeStep& s) { return s.from / s.to; }) +
         each_step(steps, x, [&](const CodeStep& s) { return (1 - s.from / s.to) / count; });
}

}  // namespace

double revealed(const CodeStep& s) { return s.from < 1 ? (s.to - s.from) / (1 - s.from) : 1; }

double code_rate(const NoiseSchedule& schedule, double sigma) { return sigma > 0 ? schedule.signal(sigma) : 1; }

Tensor one_hot(const Tensor& codes, int64_t count, at::ScalarType type) {
  const Tensor x = at::zeros({codes.size(0), count, codes.size(1), codes.size(2)}, codes.options().dtype(type));
  return x.scatter(1, codes.unsqueeze(1), 1);
}

Tensor masked(const Tensor& x) { return 1 - x.sum(1, true); }

Tensor corrupted(CodeKernel kernel, const Tensor& x0, const std::vector<double>& alpha, const Tensor& uniform) {
  const Tensor rate = each_image(alpha, uniform, [](double a) { return a; });
  const Tensor keeps = uniform < rate;
  if (kernel == CodeKernel::absorbing) return x0 * keeps.to(x0.scalar_type());
  const int64_t count = x0.size(1);
  const Tensor share = (uniform - rate) / (1 - rate).clamp_min(least);  // uniform again, of those that are not kept
  const Tensor others = (share * double(count)).floor().clamp(0, double(count - 1)).to(at::kLong).squeeze(1);
  return at::where(keeps, x0, one_hot(others, count, x0.scalar_type()));
}

Tensor code_probabilities(const Tensor& logits) {
  return at::softmax(logits.to(at::kDouble).permute({0, 2, 3, 1}).contiguous(), -1).permute({0, 3, 1, 2});
}

Tensor posterior(CodeKernel kernel, const Tensor& x, const Tensor& p, const std::vector<CodeStep>& steps) {
  if (kernel == CodeKernel::uniform) {
    const double count = double(x.size(1));
    const Tensor before = p * each_step(steps, p, [](const CodeStep& s) { return s.to; }) +
                          each_step(steps, p, [&](const CodeStep& s) { return (1 - s.to) / count; });
    return likelihood(x.to(p.scalar_type()), steps) * before;
  }
  const Tensor codes = x.to(p.scalar_type()), mask = masked(codes);
  const Tensor seen = mask * each_step(steps, p, revealed);
  return at::cat({codes + seen * p, mask - seen}, 1);
}

Tensor step_divergence(CodeKernel kernel, const Tensor& x, const Tensor& x0, const Tensor& logits, const std::vector<CodeStep>& steps) {
  if (kernel == CodeKernel::absorbing)  // both are certain of what is unmasked, and agree on how much of the rest is revealed
    return (masked(x) * each_step(steps, x, revealed)).squeeze(1) * code_cross_entropy(x0, logits);
  const double count = double(x.size(1));
  const Tensor q = posterior(kernel, x, x0, steps), truth = q / q.sum(1, true);
  const Tensor rate = each_step(steps, logits, [](const CodeStep& s) { return std::log(std::max(s.to, least)); });
  const Tensor others = each_step(steps, logits, [&](const CodeStep& s) { return std::log(std::max((1 - s.to) / count, least)); });
  const Tensor before = at::logaddexp(at::log_softmax(logits, 1) + rate, others.expand_as(logits));
  const Tensor joint = likelihood(x, steps).clamp_min(least).log() + before;
  const Tensor model = joint - at::logsumexp(joint, {1}, true);
  return (at::xlogy(truth, truth) - truth * model).sum(1);
}

Tensor code_cross_entropy(const Tensor& x0, const Tensor& logits) { return -(at::log_softmax(logits, 1) * x0).sum(1); }

Tensor drawn(const Tensor& weights, const Tensor& uniform) {
  const Tensor sums = weights.to(at::kDouble).cumsum(1), total = sums.narrow(1, weights.size(1) - 1, 1);
  return (sums <= uniform * total).sum(1).clamp_max(weights.size(1) - 1);
}

Tensor uniform_of(const Tensor& normal) {
  return ((at::erf(normal.to(at::kDouble) * std::numbers::sqrt2 / 2) + 1) / 2).clamp(0, 1 - 1e-12);
}

CodeKernel expect_code_model(const Objective::Requirements& model) {
  const OfCodes* codes = of_codes(model.parameterization);
  if (!codes) throw ConfigError("trains models of codes; set model.parameterization to logits and model.autoencoder to codes");
  if (model.variance != LearnedVariance::none) throw ConfigError("trains models without a learned variance; set model.variance to none");
  constexpr double most = 0.1;
  if (const double left = model.schedule.signal(model.schedule.sigma(model.schedule.t_max())); left > most)
    throw ConfigError(
        fmt::format("corrupts codes by the signal rate of model.noise, and {:.3g} of them would be left at its end; take one "
                    "that ends near 0: flow, cosine",
                    left));
  return codes->kernel().value_or(CodeKernel::absorbing);
}

NoisyCodes corrupt(CodeKernel kernel, const NoiseSchedule& schedule, const Tensor& x0, std::vector<double> sigmas, at::Generator& random) {
  const Tensor ones = (x0 == 1).sum(1);
  if (x0.dim() != 4 || !(ones == 1).all().item<bool>() || !((x0 == 0).sum(1) + ones == x0.size(1)).all().item<bool>())
    throw ConfigError("the objective is for codes, and the latents are not one-hot; set model.autoencoder to codes");
  const Tensor uniform = draw_rows(x0.size(0), [&](int64_t n) {
                           return at::rand({n, 1, x0.size(2), x0.size(3)}, random, at::TensorOptions().dtype(at::kDouble));
                         }).to(x0.device());
  std::vector<double> alpha;
  for (const double sigma : sigmas) alpha.push_back(code_rate(schedule, sigma));
  return {corrupted(kernel, x0, alpha, uniform), std::move(sigmas)};
}

CodeStep chain_step(const NoiseSchedule& schedule, double sigma) {
  const double t = std::nearbyint(schedule.time(sigma));
  return {code_rate(schedule, sigma), t > schedule.t_min() ? code_rate(schedule, schedule.sigma(t - 1)) : 1};
}

void expect_chain_steps(const NoiseSchedule& schedule, const std::vector<double>& sigmas) {
  const int64_t steps = int64_t(sigmas.size()) - 1, times = schedule.timesteps();
  if (times > 0 && steps > times)
    throw ConfigError(fmt::format("{} are more than the chain of codes has, {}", counted(steps, "step"), times));
}

CodeStep run_step(const NoiseSchedule& schedule, const std::vector<double>& sigmas, int64_t i) {
  const bool last = i + 2 == int64_t(sigmas.size());
  return {code_rate(schedule, sigmas[size_t(i)]), last ? 1 : code_rate(schedule, sigmas[size_t(i) + 1])};
}

Tensor first_codes(CodeKernel kernel, const Tensor& x, double sigma, Run& run) {
  if (x.dim() != 4) throw ConfigError("the sampler is for codes, [B, K, H, W]");
  const NoiseSchedule& schedule = run.training_times();
  const bool from_the_end = sigma >= schedule.sigma(schedule.t_max()) * (1 - 1e-9);  // where nothing is left of what is known
  if (const Tensor& known = run.condition.known; known.defined() && !from_the_end) {
    const std::vector<double> alpha(size_t(x.size(0)), code_rate(schedule, sigma));
    return corrupted(kernel, nearest_codes(known, x.scalar_type()).expand_as(x), alpha, uniform_per_code(x, sigma, sigma, run));
  }
  return kernel == CodeKernel::absorbing ? at::zeros_like(x) : one_hot(x.argmax(1), x.size(1), x.scalar_type());
}

Tensor estimated_codes(const Tensor& logits, const Condition& condition) {
  const Tensor p = code_probabilities(logits);
  if (!condition.mask.defined() || !condition.known.defined()) return p;
  return at::where(condition.mask < 0.5, nearest_codes(condition.known, at::kDouble), p);
}

Tensor uniform_per_code(const Tensor& x, double from, double to, Run& run) {
  return uniform_of(run.noise.draw(x.narrow(1, 0, 1), from, to));
}

}  // namespace brume
