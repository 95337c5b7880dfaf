#include "brume/numerics/ancestral.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/errors.h"

namespace brume {
namespace {

/// Returns the mean over each image, in bits.
Tensor bits(const Tensor& nats) { return nats.flatten(1).mean(1) / M_LN2; }

template <class F>
Tensor each(const std::vector<AncestralStep>& steps, const Tensor& like, const F& f) {
  std::vector<double> values;
  values.reserve(steps.size());
  for (const AncestralStep& s : steps) values.push_back(f(s));
  std::vector<int64_t> shape(size_t(like.dim()), 1);
  shape[0] = like.size(0);
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).to(like.scalar_type()).view(shape).to(like.device());
}

/// Returns log var of the model's step.
Tensor model_log_variance(const std::vector<AncestralStep>& steps, StepVariance variance, const Tensor& raw, const Tensor& like) {
  Tensor lo = each(steps, like, [](const AncestralStep& s) { return s.log_small; });
  if (variance == StepVariance::small) return lo;
  if (variance == StepVariance::large)
    return each(steps, like, [](const AncestralStep& s) { return s.to > 0 ? s.log_large : s.log_small; });
  if (!raw.defined()) throw std::logic_error("a learned variance without what the network gives for it");
  if (variance == StepVariance::learned) return raw;
  const Tensor hi = each(steps, like, [](const AncestralStep& s) { return s.log_large; });
  const Tensor v = (raw + 1) * 0.5;
  return v * hi + (1 - v) * lo;
}

Tensor approximate_normal_cdf(const Tensor& x) { return ((x + x.pow(3) * 0.044715) * std::sqrt(2 / M_PI)).tanh() * 0.5 + 0.5; }

}  // namespace

double small_variance(double from, double to) { return to * to * ((from - to) / from) * ((from + to) / from); }
double large_variance(double from, double to) { return (from - to) * (from + to) * (1 + to * to) / (1 + from * from); }

AncestralChain::AncestralChain(std::vector<double> sigmas) : sigmas_(std::move(sigmas)) {
  if (sigmas_.size() < 2) throw ConfigError("the variational bound needs at least two noise levels");
  for (size_t i = 0; i < sigmas_.size(); ++i)
    if (!(sigmas_[i] > (i > 0 ? sigmas_[i - 1] : 0)))
      throw ConfigError(fmt::format("the variational bound needs ascending noise levels above 0, and number {} is {}", i, sigmas_[i]));
}

AncestralStep AncestralChain::step(size_t i) const {
  const double from = sigmas_[i];
  if (i > 0) {
    const double to = sigmas_[i - 1];
    const double frame = std::log1p(to * to);
    return {from, to, std::log(small_variance(from, to)) - frame, std::log(large_variance(from, to)) - frame};
  }
  const double before = std::log(small_variance(sigmas_[1], from)) - std::log1p(from * from);
  return {from, 0, before, std::log(large_variance(from, 0))};
}

size_t AncestralChain::index(double sigma) const {
  const auto above = std::lower_bound(sigmas_.begin(), sigmas_.end(), sigma);
  return above == sigmas_.end() ? sigmas_.size() - 1 : size_t(above - sigmas_.begin());
}

AncestralChain training_chain(const NoiseSchedule& schedule, int64_t steps) {
  const int64_t all = schedule.timesteps();
  if (steps == 0 && all == 0) throw ConfigError("this noise schedule is continuous: the variational bound needs a number of steps");
  if (all > 0 && steps > all)
    throw ConfigError(fmt::format("{} are more than the schedule's {} training times", counted(steps, "step"), all));
  std::vector<double> sigmas;
  if (all > 0 && (steps == 0 || steps == all)) {
    for (int64_t t = 0; t < all; ++t) sigmas.push_back(schedule.sigma(double(t)));
    return AncestralChain(std::move(sigmas));
  }
  for (int64_t i = 0; i < steps; ++i) {
    const double share = all > 0 ? (steps > 1 ? double(i) / double(steps - 1) : 1) : double(i + 1) / double(steps);
    const double t = schedule.t_min() + share * (schedule.t_max() - schedule.t_min());
    sigmas.push_back(schedule.sigma(all > 0 ? std::nearbyint(t) : t));
  }
  return AncestralChain(std::move(sigmas));
}

Tensor normal_kl(const Tensor& mean1, const Tensor& log_var1, const Tensor& mean2, const Tensor& log_var2) {
  // In the order of guided-diffusion: at much noise the terms are of the size of float32's rounding.
  const Tensor gap = mean1 - mean2;
  return (-1 + log_var2 - log_var1 + (log_var1 - log_var2).exp() + gap * gap * (-log_var2).exp()) * 0.5;
}

Tensor discretized_gaussian_log_likelihood(const Tensor& x, const Tensor& mean, const Tensor& log_std) {
  const Tensor centred = x - mean, inverse = (-log_std).exp();
  const Tensor above = approximate_normal_cdf((centred + 1.0 / 255) * inverse);
  const Tensor below = approximate_normal_cdf((centred - 1.0 / 255) * inverse);
  const auto log = [](const Tensor& p) { return p.clamp_min(1e-12).log(); };
  return at::where(x < -0.999, log(above), at::where(x > 0.999, log(1 - below), log(above - below)));
}

Tensor vlb_terms(const Tensor& x0, const Tensor& error, const std::vector<AncestralStep>& steps, StepVariance variance, const Tensor& raw) {
  const Tensor model = model_log_variance(steps, variance, raw, error);
  const auto ends = [](const AncestralStep& s) { return s.to == 0; };
  Tensor kl, nll;
  if (!std::all_of(steps.begin(), steps.end(), ends)) {
    const Tensor truth = each(steps, error, [](const AncestralStep& s) { return s.log_small; });
    // Both means have (to/from)^2 x in them; what is left is 1 - (to/from)^2 of the error.
    const Tensor gap = error * each(steps, error, [](const AncestralStep& s) {
                         return (s.from - s.to) / s.from * ((s.from + s.to) / s.from) / std::sqrt(1 + s.to * s.to);
                       });
    kl = bits(normal_kl(gap, truth, at::zeros_like(gap), model.expand_as(gap)));
  }
  if (std::any_of(steps.begin(), steps.end(), ends)) nll = bits(-discretized_gaussian_log_likelihood(x0, x0 + error, model * 0.5));
  if (!nll.defined()) return kl;
  if (!kl.defined()) return nll;
  return at::where(each(steps, error, ends).view(-1) > 0, nll, kl);
}

Tensor prior_term(const Tensor& x0, double sigma, double start_std) {
  const auto constant = [&](double v) { return at::full_like(x0, v); };
  return bits(normal_kl(x0, constant(2 * std::log(sigma)), at::zeros_like(x0), constant(2 * std::log(start_std))));
}

}  // namespace brume
