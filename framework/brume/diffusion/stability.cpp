#include "brume/diffusion/stability.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/core/boundary.h"
#include "brume/core/codes.h"
#include "brume/core/noise.h"
#include "brume/numerics/timesteps.h"

namespace brume {
namespace {

constexpr double error = 1e-3;   ///< of the network's output, whose spread is about 1
constexpr double visible = 0.1;  ///< in images, whose values lie in [-1, 1]
constexpr int64_t most_steps = 2000;

/// The denoiser of data N(0, 1/4), value by value, with a network that errs up and down by turns.
class ErringDenoiser final : public Denoiser {
 public:
  ErringDenoiser(const Parameterization& parameterization, double error) : parameterization_(parameterization), error_(error) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = x * (0.25 / (0.25 + sigma * sigma)) + parameterization_.c_out(sigma) * (calls_++ % 2 == 0 ? error_ : -error_);
    d.variance = at::zeros_like(x);
    return d;
  }

 private:
  const Parameterization& parameterization_;
  double error_;
  mutable int64_t calls_ = 0;
};

Tensor trial(const ModelOptions& model, const SampleOptions& sample, const std::vector<double>& sigmas, double error) {
  std::shared_ptr<const Denoiser> denoiser = std::make_shared<ErringDenoiser>(*model.parameterization, error);
  for (const auto& g : sample.guidance)
    if (g->traits().place == GuidancePlace::clip)
      denoiser = calling(*g, "wrap()", [&] { return g->wrap(denoiser, {model.noise, no_models(), model.parameterization}); });
  const auto noise = per_image_noise(0, 0);
  const Condition none;
  Run run{none, *noise, {}, model.noise.get()};
  const Tensor like = at::empty({1, 1, 4, 4}, at::kDouble);
  const Tensor x = noise->draw(like, sigmas[0], sigmas[0]) * model.noise->start_std(sigmas[0]);
  return calling(*sample.sampler, "sample()", [&] { return sample.sampler->sample(*denoiser, x, sigmas, run); });
}

}  // namespace

std::optional<std::string> divergence_warning(const ModelOptions& model, const SampleOptions& sample) {
  const at::NoGradGuard no_grad;
  if (sample.steps > most_steps || sample.sampler->traits().own_steps || of_codes(*sample.sampler)) return {};
  std::vector<double> sigmas;
  double grown = 0;
  try {
    sigmas = distinct_levels(checked_sigmas(*sample.spacing, *model.noise, sample.steps));
    grown = (trial(model, sample, sigmas, error) - trial(model, sample, sigmas, 0)).abs().max().item<double>();
  } catch (const ConfigError&) {
    if (sigmas.empty()) return {};
    grown = INFINITY;  // not a number within the run
  }
  if (grown < visible) return {};
  const double first = sigmas.front(), counts = std::abs(model.parameterization->c_out(first));
  const std::string shown = fmt::format("errors of 0.1 % in the network's output grow to {:.3g} in images of [-1, 1]", grown);
  if (counts > 1000)
    return fmt::format(
        "model.parameterization: at the first level, sigma = {:.3g}, the network's output counts {:.3g} times in the estimate of the "
        "image, "
        "and {}; predict v or x0 where the signal ends, begin at a lower sigma, or add the guidance clip",
        first, counts, shown);
  return fmt::format(
      "sample.sampler: {} from the first level, sigma = {:.3g}; take ddim, euler or dpmpp_multistep, or begin at a lower sigma", shown,
      first);
}

}  // namespace brume
