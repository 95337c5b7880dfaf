#include "brume/hires.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/upsample_bicubic2d.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/config/suggest.h"
#include "brume/diffusion/pipeline.h"
#include "brume/like.h"

namespace brume {
namespace {

/// Returns the side nearest to `side * factor` that the network takes.
int64_t enlarged(const Model& model, int64_t side, double factor) {
  const int64_t step = std::max<int64_t>(1, model.pipeline().network().multiple() * (model.shape().height / model.latent().height));
  return std::max<int64_t>(1, std::llround(double(side) * factor / double(step))) * step;
}

void check(const ImageRequest& r, bool latents) {
  const auto name = [&](std::string_view field) { return called(r.names, field); };
  if (!(*r.hires > 1 && *r.hires <= 8)) throw ConfigError(fmt::format("{}: {} is outside (1, 8]", name("hires"), *r.hires));
  if (const double strength = r.hires_strength.value_or(0.5); !(strength > 0 && strength <= 1))
    throw ConfigError(fmt::format("{}: {} is outside (0, 1]", name("hires_strength"), strength));
  if (!latents && !r.hires_of.empty() && r.hires_of != "pixels")
    throw ConfigError(
        fmt::format("{}: '{}' is neither pixels nor latents{}", name("hires_of"), r.hires_of, hint(r.hires_of, {"pixels", "latents"})));
  if (r.mask.defined() || r.initial_noise.defined())
    throw ConfigError(fmt::format("{}: cannot be with {}, which has the size of the first pass", name("hires"),
                                  name(r.mask.defined() ? "mask" : "initial_noise")));
}

}  // namespace

Tensor sample_hires(const Model& model, const ImageRequest& r) {
  const bool latents = r.hires_of == "latents";
  check(r, latents);
  const ImageShape own = model.shape();
  ImageRequest first = r, second = r;
  std::vector<Tensor> ends;
  for (ImageRequest* pass : {&first, &second}) pass->hires_strength.reset(), pass->hires_of.clear();
  first.hires.reset();
  first.made = {};
  first.ended = [&](const Tensor& x) { ends.push_back(x.to(at::kFloat).cpu()); };
  if (r.progress) first.progress = [&](const SampleProgress& p) { return r.progress({p.done, 2 * p.total, p.first, p.step, p.preview}); };
  const Tensor small = model.sample(first);

  second.hires.reset();
  second.refiner.clear();
  second.refine_from.reset();
  second.image = Tensor();
  second.height = enlarged(model, r.height > 0 ? r.height : own.height, *r.hires);
  second.width = enlarged(model, r.width > 0 ? r.width : own.width, *r.hires);
  const ImageSteps steps = steps_of_second_pass(r.like, model.sampling(r).steps, r.hires_strength.value_or(0.5));
  second.steps = steps.steps;
  second.strength = steps.strength;
  if (r.progress)
    second.progress = [&](const SampleProgress& p) { return r.progress({p.total + p.done, 2 * p.total, p.first, p.step, p.preview}); };
  if (latents) {
    const ImageShape z = model.pipeline().autoencoder().latent({own.channels, second.height, second.width});
    second.latents = at::upsample_bilinear2d(at::cat(ends), {z.height, z.width}, false);
  } else {
    second.image = at::upsample_bicubic2d(small, {second.height, second.width}, false).clamp(-1, 1);
  }
  return model.sample(second);
}

}  // namespace brume
