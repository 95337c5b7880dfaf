#include "brume/diffusion/likelihood.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/stack.h>

#include <cmath>

namespace brume {

Tensor VariationalBound::total() const { return prior + terms.sum(1); }

StepVariance step_variance(LearnedVariance learned, StepVariance fallback) {
  switch (learned) {
    case LearnedVariance::none: return fallback;
    case LearnedVariance::learned: return StepVariance::learned;
    case LearnedVariance::learned_range: return StepVariance::learned_range;
  }
  throw std::logic_error("unknown variance");
}

VariationalBound variational_bound(const Denoiser& denoiser, const Tensor& x0, const Condition& condition, const AncestralChain& chain,
                                   double start_std, const BoundOptions& o, Noise& noise, const std::function<bool(int64_t)>& done) {
  const at::NoGradGuard no_grad;
  const size_t steps = chain.size(), images = size_t(x0.size(0));
  std::vector<Tensor> terms(steps), mse(steps);
  for (size_t i = steps; i-- > 0;) {
    const AncestralStep step = chain.step(i);
    const Tensor x = x0 + noise.draw(x0, step.from, step.to) * step.from;
    const Estimate d = denoiser.denoise(x, step.from, condition);
    const Tensor error = (o.clip ? d.x0.clamp(-1, 1) : d.x0) - x0;
    terms[i] = vlb_terms(x0, error, std::vector<AncestralStep>(images, step), o.variance, d.variance);
    mse[i] = error.square().flatten(1).mean(1);
    if (done && !done(int64_t(steps - i))) throw Interrupted();
  }
  return {prior_term(x0, chain.sigma(steps - 1), start_std), at::stack(terms, 1), at::stack(mse, 1)};
}

namespace {

/// D(x) and Hutchinson's estimate of the trace of dD/dx. Every probe is a row of one batch.
struct Traced {
  Tensor x0;
  double trace;
};
Traced traced(const Denoiser& denoiser, const Tensor& x, double sigma, const Condition& condition, const Tensor& probes) {
  const at::AutoGradMode with_grad(true);
  const Tensor leaf = x.expand_as(probes).contiguous().detach().set_requires_grad(true);
  const Tensor x0 = denoiser.denoise(leaf, sigma, condition).x0;
  const std::vector<Tensor> inputs{leaf};
  x0.backward(probes, {}, false, at::TensorList(inputs));
  const Tensor product = leaf.grad().defined() ? leaf.grad() * probes : probes * 0;  // undefined: D does not depend on x
  return {x0.detach().narrow(0, 0, 1), product.to(at::kDouble).sum().item<double>() / double(probes.size(0))};
}

Tensor draw_probes(const Tensor& x, const OdeOptions& o, double sigma, Noise& noise) {
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < o.probes; ++i) rows.push_back(noise.draw(x, sigma, sigma));
  const Tensor normal = at::cat(rows);
  return o.probe == OdeOptions::Probe::gaussian ? normal : normal.sign();
}

}  // namespace

OdeLikelihood ode_likelihood(const Denoiser& denoiser, const Tensor& x, const Condition& condition, const NoiseSchedule& schedule,
                             const OdeOptions& o, Noise& noise) {
  const at::NoGradGuard no_grad;
  const double lo = schedule.sigma(schedule.t_min()), hi = schedule.sigma(schedule.t_max()), dim = double(x.numel());
  const Tensor probes = draw_probes(x, o, lo, noise);
  Condition repeated = condition;
  for (int64_t i = 1; i < o.probes; ++i) repeated = concat(repeated, condition);
  // The state: x, then the integral of the divergence, in float64 whatever the network computes in.
  const auto slope = [&](double tau, const Tensor& state) {
    const Tensor at_sigma = state.narrow(0, 0, x.numel());
    const Traced d = traced(denoiser, at_sigma.to(x.scalar_type()).view(x.sizes()), std::exp(tau), repeated, probes);
    return at::cat({at_sigma - d.x0.to(state.scalar_type()).view(-1), at::full({1}, dim - d.trace, state.options())});
  };
  const Tensor start = at::cat({x.to(at::kDouble).contiguous().view(-1), at::full({1}, 0, x.options().dtype(at::kDouble))});
  const Rk45Result r = rk45(slope, start, std::log(lo), std::log(hi), o.solver);
  const Tensor end = r.x.narrow(0, 0, x.numel());
  const double std = schedule.start_std(hi), squares = end.square().sum().item<double>();
  const double prior = -0.5 * (squares / (std * std) + dim * std::log(2 * M_PI * std * std));
  return {prior + r.x[x.numel()].item<double>(), end.to(x.scalar_type()).view(x.sizes()), r.evaluations};
}

Tensor dequantized(const Tensor& images, uint64_t seed, int64_t first) {
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < images.size(0); ++i) {
    at::Generator random = at::detail::createCPUGenerator(mix_seed(seed, 31, uint64_t(first + i)));
    rows.push_back(at::rand(images[i].sizes(), random, at::TensorOptions().dtype(images.scalar_type())) - 0.5);
  }
  return rows.empty() ? images : images + at::stack(rows).to(images.device()) / 127.5;
}

double bits_per_dim(double log_p, int64_t dimensions) { return -log_p / (double(dimensions) * M_LN2) + std::log2(127.5); }

}  // namespace brume
