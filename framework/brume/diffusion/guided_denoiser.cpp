#include "brume/diffusion/guided_denoiser.h"

#include "brume/core/boundary.h"
#include "brume/core/sized_spacing.h"
#include "brume/diffusion/class_names.h"
#include "brume/diffusion/prompt_plan.h"
#include "brume/numerics/timesteps.h"

namespace brume {
namespace {

/// The denoiser that a library's guidance returned: what goes wrong in it is reported in the guidance's name.
class Checked final : public Denoiser {
 public:
  Checked(std::shared_ptr<const Guidance> guidance, std::shared_ptr<const Denoiser> inner)
      : guidance_(std::move(guidance)), inner_(std::move(inner)) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const Estimate d = calling(*guidance_, function, [&] { return inner_->denoise(x, sigma, condition); });
    expect_shape(guidance_.get(), function, d.x0, x.sizes().vec());
    for (const Tensor& t : {d.x0_uncond, d.gradient})
      if (t.defined()) expect_shape(guidance_.get(), function, t, x.sizes().vec());
    return d;
  }

 private:
  static constexpr const char* function = "denoise() of its denoiser";
  std::shared_ptr<const Guidance> guidance_;
  std::shared_ptr<const Denoiser> inner_;
};

std::shared_ptr<const Denoiser> wrapped(const std::shared_ptr<const Guidance>& guidance, std::shared_ptr<const Denoiser> inner,
                                        const GuidedModel& model) {
  std::shared_ptr<const Denoiser> steered = calling(*guidance, "wrap()", [&] { return guidance->wrap(std::move(inner), model); });
  if (plugin_name(guidance.get()).empty()) return steered;
  if (!steered) blame(guidance.get(), "wrap() returned no denoiser");
  return std::make_shared<Checked>(guidance, std::move(steered));
}

}  // namespace

std::vector<double> sigmas_for(const Spacing& spacing, const ImageShape& latent, const NoiseSchedule& schedule, int64_t steps) {
  if (const auto* sized = dynamic_cast<const SizedSpacing*>(&spacing)) return checked_sigmas(*sized->for_size(latent), schedule, steps);
  return checked_sigmas(spacing, schedule, steps);
}

std::shared_ptr<const Denoiser> guided_denoiser(const Pipeline& model, const SampleOptions& options, const ModelSource& models,
                                                const ImageShape& latent, const CallTaps& controls) {
  options.check(model.options());
  std::vector<double> steps;
  if (options.timestep_rounding == TimestepRounding::nearest_step)
    steps = sigmas_for(*options.spacing, latent, *model.options().noise, options.steps);
  const auto made = [&](Taps taps) {
    std::shared_ptr<const Denoiser> d = model.denoiser(options.timestep_rounding, steps, std::move(taps), controls);
    const bool planned = options.prompts.changes || options.prompts.clip_skips.size() > 1;
    return planned ? following_plan(std::move(d)) : d;
  };
  const std::shared_ptr<const Denoiser> own = made({});
  const auto tapped = [&](Taps taps) { return taps.empty() ? own : made(std::move(taps)); };
  const SameClasses others(models, {model.options().class_names, "the model"});
  const GuidedModel steered{.schedule = model.options().noise,
                            .models = others,
                            .parameterization = model.options().parameterization,
                            .controls = model.options().controls(),
                            .shape = latent,
                            .tap_points = model.network().tap_points(),
                            .denoiser = tapped};
  std::shared_ptr<const Denoiser> denoiser = own;
  for (const auto& g : options.guidance) denoiser = wrapped(g, denoiser, steered);
  return denoiser;
}

}  // namespace brume
