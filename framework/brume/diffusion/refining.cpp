#include "brume/diffusion/refining.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/core/boundary.h"
#include "brume/core/codes.h"
#include "brume/core/interruption.h"
#include "brume/core/run_memory.h"
#include "brume/diffusion/empty_prompt.h"
#include "brume/diffusion/guided_denoiser.h"

namespace brume {

Refiner::Refiner(const Refining& refining, const ImageShape& image, const ImageShape& latent)
    : refining_(refining), image_(image), reading_(refining.options.prompts.readings().front()) {
  if (of_codes(*refining.model.options().parameterization))
    throw ConfigError("the refiner is a model of codes, whose runs begin with noise");
  const ImageShape own = refining.model.autoencoder().latent(image);
  if (own != latent)
    throw ConfigError(fmt::format("the refiner has latents of {} for images of {}x{}, and the base model those of {}", own.text(),
                                  image.width, image.height, latent.text()));
  refining.options.check(refining.model.options());
  denoiser_ = guided_denoiser(refining.model, refining.options, refining.models, latent);
}

int64_t Refiner::split(const NoiseSchedule& schedule, const std::vector<double>& sigmas) const {
  const double lo = schedule.t_min(), hi = schedule.t_max();
  const int64_t steps = int64_t(sigmas.size()) - 1;
  int64_t k = 0;
  const auto done = [&] { return double(k) / double(steps); };
  while (refining_.of_steps && k < steps && done() < refining_.from - 1e-9) ++k;
  while (!refining_.of_steps && k < steps && (schedule.time(sigmas[size_t(k)]) - lo) / (hi - lo) >= 1 - refining_.from) ++k;
  if (k == 0 || k == steps)
    throw ConfigError(fmt::format("a refiner from {} on leaves no step to the {} of {}", refining_.from, k == 0 ? "base model" : "refiner",
                                  counted(steps, "step")));
  return k;
}

Condition Refiner::condition_of(int64_t first, int64_t count) const {
  const Compute& compute = refining_.model.compute();
  const auto begin = refining_.images.begin() + first;
  const std::vector<Annotation> wanted(begin, begin + count);
  stop_if_asked();
  const ConditionEncoder& encoder = refining_.model.encoder();
  const auto encode = [&](const std::vector<Annotation>& annotations) {
    return encoder.encode({.annotations = annotations,
                           .dtype = compute.dtype,
                           .device = compute.device,
                           .shape = image_,
                           .first_stage = &refining_.model.autoencoder(),
                           .reading = &reading_});
  };
  return calling(encoder, "encode()", [&] { return encode_with_empty(refining_.options.guidance, wanted, encode); }).to(compute.device);
}

Tensor Refiner::sample(const Tensor& x, const std::vector<double>& sigmas, int64_t first, Noise& noise, std::unique_ptr<Noise> of_guidances,
                       const std::function<bool(const Step&)>& observer) const {
  const Condition condition = condition_of(first, x.size(0));
  const Sampler& sampler = *refining_.options.sampler;
  Run run{condition, noise, observer, refining_.model.options().noise.get()};
  const RunMemory memory(std::move(of_guidances), sigmas);
  Tensor end = calling(sampler, "sample()", [&] { return sampler.sample(*denoiser_, x, sigmas, run); });
  expect_shape(&sampler, "sample()", end, x.sizes().vec());
  return end;
}

}  // namespace brume
