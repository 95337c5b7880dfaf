// Twelve plugins with one bug each, which `brume conform` is to find: mistakes that people make when they write such a plugin.
#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "brume/config/plugin.h"
#include "brume/core/guidance.h"
#include "brume/core/noise_schedule.h"
#include "brume/core/objective.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"
#include "brume/numerics/noising.h"

namespace {
using namespace brume;

struct NoOptions {
  void declare(Fields&) {}
};

/// Euler's method with one thing wrong.
enum class SamplerBug { sign, history, shared_noise, in_place };

template <SamplerBug bug>
class BuggySampler final : public Sampler {
 public:
  using Options = NoOptions;
  explicit BuggySampler(const Options&) {}
  SamplerTraits traits() const override { return {.order = bug == SamplerBug::history ? 2 : bug == SamplerBug::shared_noise ? 0 : 1}; }
  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    Tensor last;
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigma, x, x0});
      const Tensor d = (x - x0) / sigma;
      if constexpr (bug == SamplerBug::in_place) {
        x.add_(d, to - sigma);  // the caller's x
      } else if constexpr (bug == SamplerBug::sign) {
        x = x0 - d * to;  // the noise is put back with the wrong sign
      } else if constexpr (bug == SamplerBug::history) {
        const Tensor slope = last.defined() ? d * 1.5 - last * 0.5 : d;
        x = x + slope * (to - sigma);
        if (!last.defined()) last = d;  // and never again
      } else {
        const double up = to * std::sqrt(1 - to * to / (sigma * sigma)), down = to * to / sigma;
        x = x0 + d * down + run.noise.draw(x.narrow(0, 0, 1), sigma, to) * up;  // one noise for the whole batch
      }
    }
    return x;
  }
};

/// log sigma is linear in t; time() takes the wrong logarithm.
class WrongTime final : public NoiseSchedule {
 public:
  using Options = NoOptions;
  explicit WrongTime(const Options&) {}
  double sigma(double t) const override { return std::exp(-4 + 8 * t); }
  double time(double sigma) const override { return std::clamp((std::log10(std::max(sigma, 1e-9)) + 4) / 8, 0.0, 1.0); }
  double t_min() const override { return 0; }
  double t_max() const override { return 1; }
};

/// Karras' sigmas, one too few: without the 0 at the end.
class OneTooFew final : public Spacing {
 public:
  using Options = NoOptions;
  explicit OneTooFew(const Options&) {}
  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const double a = std::pow(schedule.sigma(schedule.t_max()), 1.0 / 7), b = std::pow(schedule.sigma(schedule.t_min()), 1.0 / 7);
    std::vector<double> all;
    for (int64_t i = 0; i < steps; ++i) all.push_back(std::pow(a + (b - a) * double(i) / double(std::max<int64_t>(steps - 1, 1)), 7));
    all.front() = schedule.sigma(schedule.t_max());
    return all;
  }
};

/// v prediction that forgets c_skip.
class NoSkip final : public Parameterization {
 public:
  using Options = NoOptions;
  explicit NoSkip(const Options&) {}
  double c_skip(double) const override { return 0; }
  double c_out(double sigma) const override { return -sigma / std::hypot(1, sigma); }
};

/// EDM's preconditioning with sigma instead of sigma^2 in c_skip.
class SigmaForVariance final : public Parameterization {
 public:
  using Options = NoOptions;
  explicit SigmaForVariance(const Options&) {}
  double c_skip(double sigma) const override { return 0.25 / (sigma + 0.25); }
  double c_out(double sigma) const override { return 0.5 * sigma / std::hypot(sigma, 0.5); }
};

/// The error of the image; with the noise of one image on all, or measured after the batch's mean error is taken off.
enum class ObjectiveBug { shared_noise, batch_mean };

template <ObjectiveBug bug>
class BuggyObjective final : public Objective {
 public:
  struct Options {
    std::shared_ptr<const TimeSampler> time;
    void declare(Fields& f) { f.field("time", time, "which noise levels are drawn", "uniform"); }
  };
  explicit BuggyObjective(const Options& o) : o_(o) {}
  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const TimeSampler::Draw draw = o_.time->draw(model.schedule(), x0.size(0), training.memory, random);
    NoisyBatch b = add_noise(x0, draw.sigmas, random);
    if (bug == ObjectiveBug::shared_noise) {
      b.noise = b.noise.narrow(0, 0, 1).expand_as(x0);
      b.x = x0 + b.noise * each_image(b.sigmas, x0, [](double s) { return s; });
    }
    Tensor error = scaled_error(b, model.network(b.x, b.sigmas, condition), model.parameterization(), [](double s) { return 1 / s; });
    if (bug == ObjectiveBug::batch_mean) error = error - error.mean(0, true);
    return error.square().mean();
  }

 private:
  Options o_;
};

/// Classifier-free guidance; with the two estimates exchanged, or with the unconditional estimates in the wrong order.
enum class GuidanceBug { exchanged, rows };

template <GuidanceBug bug>
class BuggyGuidance final : public Guidance {
 public:
  struct Options {
    double scale = 2;
    void declare(Fields& f) { f.field("scale", scale, "1 = the conditional model", at_least(0)); }
  };
  explicit BuggyGuidance(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = true}; }
  void check(const Controls& controls) const override { need_null(controls, "buggy"); }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<Wrapped>(std::move(inner), o_.scale);
  }

 private:
  class Wrapped final : public Denoiser {
   public:
    Wrapped(std::shared_ptr<const Denoiser> inner, double scale) : inner_(std::move(inner)), scale_(scale) {}
    Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
      const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "buggy");
      Estimate d = e.with;
      if (bug == GuidanceBug::exchanged) d.x0 = extrapolate(e.with.x0, e.without.x0, scale_);
      if (bug == GuidanceBug::rows) d.x0 = extrapolate(e.without.x0.flip(0), e.with.x0, scale_);
      return d;
    }

   private:
    std::shared_ptr<const Denoiser> inner_;
    double scale_;
  };
  Options o_;
};

}  // namespace

BRUME_PLUGIN("planted_bugs") {
  using SB = SamplerBug;
  registry.add<Sampler, BuggySampler<SB::sign>>("wrong_sign", "puts the noise back with the wrong sign");
  registry.add<Sampler, BuggySampler<SB::history>>("stale_history", "loses its order");
  registry.add<Sampler, BuggySampler<SB::shared_noise>>("one_noise_per_batch", "draws one noise for the batch");
  registry.add<Sampler, BuggySampler<SB::in_place>>("in_place", "writes to its input");
  registry.add<NoiseSchedule, WrongTime>("wrong_time", "its time is no inverse");
  registry.add<Spacing, OneTooFew>("one_too_few", "one sigma is missing");
  registry.add<Parameterization, NoSkip>("no_skip", "forgets c_skip");
  registry.add<Parameterization, SigmaForVariance>("sigma_for_variance", "sigma instead of sigma^2");
  registry.add<Objective, BuggyObjective<ObjectiveBug::shared_noise>>("one_noise", "one noise for all images");
  registry.add<Objective, BuggyObjective<ObjectiveBug::batch_mean>>("batch_mean", "takes the mean over the batch off");
  registry.add<Guidance, BuggyGuidance<GuidanceBug::exchanged>>("exchanged", "null and condition exchanged");
  registry.add<Guidance, BuggyGuidance<GuidanceBug::rows>>("swapped_rows", "unconditional rows in the wrong order");
}
