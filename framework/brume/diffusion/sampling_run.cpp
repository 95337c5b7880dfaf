#include "brume/diffusion/sampling_run.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/out_of_memory.h"
#include "brume/core/boundary.h"
#include "brume/core/interruption.h"
#include "brume/core/run_memory.h"
#include "brume/diffusion/decoding.h"
#include "brume/diffusion/empty_prompt.h"
#include "brume/diffusion/guided_denoiser.h"
#include "brume/diffusion/inpainting_start.h"
#include "brume/diffusion/prompt_plan.h"
#include "brume/diffusion/refining.h"
#include "brume/diffusion/run_controls.h"
#include "brume/diffusion/run_noise.h"
#include "brume/nn/ops/memory_pool.h"
#include "brume/nn/ops/one_call_scope.h"
#include "brume/numerics/timesteps.h"

namespace brume {
namespace {

/// Returns the requested classes; undefined if an image has none.
Tensor labels_of(const std::vector<Annotation>& wanted) {
  std::vector<int64_t> labels;
  for (const Annotation& a : wanted) labels.push_back(a.label);
  return std::any_of(labels.begin(), labels.end(), [](int64_t label) { return label < 0; }) ? Tensor() : at::tensor(labels);
}

/// Sets what guidances read, in the condition and in its null condition.
void set_guides(Condition& condition, const Tensor& labels, const Tensor& known, const Tensor& mask) {
  condition.labels = labels;
  condition.known = known;
  condition.mask = mask;
  if (!condition.null) return;
  Condition null = *condition.null;
  set_guides(null, labels, known, mask);
  condition.null = std::make_shared<Condition>(std::move(null));
}

/// Returns rows [first, first + n), or the one row n times.
Tensor rows_of(const Tensor& t, int64_t first, int64_t n) {
  if (!t.defined()) return t;
  return t.size(0) == 1 ? t.expand({n, -1, -1, -1}) : t.narrow(0, first, n);
}

/// One call of sample_images().
class SamplingRun {
 public:
  SamplingRun(const Pipeline& model, const SampleRequest& request, const SampleOptions& options);
  /// Calls `take` with the images of each batch, in order, and the index of the first of them.
  void each_batch(const std::function<void(int64_t first, const Tensor& images)>& take) const;
  Tensor images() const;

 private:
  /// The images of a batch: their numbers, noise, and latents of what is known of them.
  struct Part {
    int64_t first, count;
    Noise& noise;
    Tensor known{};
    Autoencoder::Normal normal() const {
      return [&noise = noise](const Tensor& like) { return noise.draw(like, 0, 0); };
    }
  };

  /// What a batch begins with.
  struct Start {
    std::unique_ptr<Noise> noise;
    Part part;
    Tensor x;
    Condition condition;
    std::shared_ptr<const PromptPlan> plan;  ///< null: the prompts do not change
  };

  void check_sides() const;
  void check_shapes() const;
  void check_image() const;
  void choose_steps();
  void encode_known();
  Tensor sample(int64_t first, int64_t count) const;
  /// Returns what sample() returns. Throws ConfigError that says which batch fits, if there is not enough memory.
  Tensor sample_or_advise(int64_t first, int64_t count) const;
  Start start(int64_t first, int64_t count) const;
  Condition condition_of(const Part& part, std::shared_ptr<const PromptPlan>& plan) const;
  Tensor initial(const Tensor& noise, const Part& part) const;
  /// Returns one row per image; one row for all if one is given and drawn for all at once, as PyTorch users have it.
  Tensor rows(const Tensor& t, const Part& part) const {
    return t.defined() && t.size(0) == 1 && options_.noise_order == NoiseOrder::batch ? t : rows_of(t, part.first, part.count);
  }
  /// Returns the standard deviation of the noise that a run starts from at sigma.
  double start_std(double sigma) const {
    const NoiseSchedule& noise = *model_.options().noise;
    const bool below = sigma < noise.sigma(noise.t_max()) * (1 - 1e-5);
    const bool plain = options_.start == StartStd::sigma || (options_.start == StartStd::schedule_at_max && below);
    return plain ? sigma : noise.start_std(sigma);
  }
  int64_t count() const { return int64_t(request_.images.size()); }
  /// Returns the request's observer of a batch; its steps are counted from `before`.
  std::function<bool(const Step&)> observer(int64_t first, int64_t before) const {
    if (!refiner_) return [this, first](const Step& step) { return request_.observer(first, step); };
    return [this, first, before](const Step& step) {
      return request_.observer(first, {step.index + before, int64_t(sigmas_.size()) - 1, step.sigma, step.x, step.x0});
    };
  }

  const Pipeline& model_;
  const SampleRequest& request_;
  const SampleOptions& options_;
  ImageShape image_, latent_;
  std::vector<double> sigmas_;
  bool whole_ = true;                            ///< every step is run
  Tensor known_, mask_;                          ///< moments of the given image, and what of it to generate; one row, or one per image
  std::vector<PromptReading> readings_;          ///< by equal shares of the steps
  Tensor regions_;                               ///< as regions_of() returns them
  std::shared_ptr<const RunControls> controls_;  ///< null = none
  std::shared_ptr<const Denoiser> denoiser_;
  std::optional<Refiner> refiner_;
  int64_t own_steps_ = 0;  ///< steps before the refiner's
};

SamplingRun::SamplingRun(const Pipeline& model, const SampleRequest& request, const SampleOptions& options)
    : model_(model), request_(request), options_(options), image_(model.options().image) {
  if (request.height > 0) image_.height = request.height;
  if (request.width > 0) image_.width = request.width;
  if (options.noise_order == NoiseOrder::batch && request.batch < count())
    throw ConfigError(
        fmt::format("noise order 'batch' draws all {} images at once; raise the batch from {} or use per_image", count(), request.batch));
  options.check(model.options());
  check_sides();
  latent_ = model.autoencoder().latent(image_);
  check_shapes();
  check_image();
  choose_steps();
  encode_known();
  readings_ = options.prompts.readings();
  if (const Tensor regions = regions_of(options.prompts.regions, request.images, image_); regions.defined())
    regions_ = regions.to(model.compute().device);
  if (!options.control.empty())
    controls_ = std::make_shared<const RunControls>(model, options.control,
                                                    ControlledRun{image_, latent_, request.mask, request.control_source, count(), sigmas_});
  denoiser_ = guided_denoiser(model, options, *request.models, latent_, controls_ ? controls_->taps() : CallTaps());
  own_steps_ = int64_t(sigmas_.size()) - 1;
  if (request.refining) {
    refiner_.emplace(*request.refining, image_, latent_);
    own_steps_ = refiner_->split(*model.options().noise, sigmas_);
  }
  if (known_.defined() && mask_.defined() && whole_) denoiser_ = started_from_noise(denoiser_, sigmas_.front(), start_std(sigmas_.front()));
}

/// Throws ConfigError if the sides do not suit the network or the first stage, which decides if the network takes any.
void SamplingRun::check_sides() const {
  const int64_t multiple = model_.network().multiple(), step = multiple * (model_.options().image.height / model_.latent().height);
  if (multiple == 1 || (image_.height % step == 0 && image_.width % step == 0)) return;
  const auto nearest = [&](int64_t side) { return std::max<int64_t>(1, (side + step / 2) / step) * step; };
  throw ConfigError(fmt::format("the network takes images whose sides are multiples of {}, and {} by {} are not; the nearest is {} by {}",
                                step, image_.height, image_.width, nearest(image_.height), nearest(image_.width)));
}

void SamplingRun::check_shapes() const {
  if (!request_.runs.empty() && (int64_t(request_.runs.size()) != count() || options_.noise_order == NoiseOrder::batch))
    throw std::logic_error("images of several runs: one run per image, and an order of noise by images");
  const ImageShape& z = latent_;
  if (const Tensor& l = request_.latents;
      l.defined() && l.sizes() != at::IntArrayRef({l.size(0) == 1 ? 1 : count(), z.channels, z.height, z.width}))
    throw ConfigError(fmt::format("the latents have shape [{}], expected [1 or {}, {}, {}, {}]", fmt::join(l.sizes(), ", "), count(),
                                  z.channels, z.height, z.width));
  if (request_.initial_noise.defined() && request_.initial_noise.sizes() != at::IntArrayRef({count(), z.channels, z.height, z.width}))
    throw ConfigError(fmt::format("the initial noise has shape [{}], expected [{}, {}, {}, {}]",
                                  fmt::join(request_.initial_noise.sizes(), ", "), count(), z.channels, z.height, z.width));
}

void SamplingRun::check_image() const {
  const auto expect = [&](const Tensor& t, const char* what, int64_t channels) {
    if (!t.defined()) return;
    const int64_t rows = t.dim() == 4 && t.size(0) == 1 ? 1 : count();
    if (t.sizes() != at::IntArrayRef({rows, channels, image_.height, image_.width}))
      throw ConfigError(fmt::format("the {} has shape [{}], expected [{}, {}, {}, {}]", what, fmt::join(t.sizes(), ", "), rows, channels,
                                    image_.height, image_.width));
  };
  const SampleRequest& r = request_;
  const bool concat = model_.concat_image(), masks = model_.options().conditioner->traits().masks;
  if (concat && !r.image.defined()) throw ConfigError("this model makes images out of others, and none is given");
  if (concat && r.mask.defined() && !masks) throw ConfigError("this model makes images out of others, whole ones: it takes no mask");
  if (!concat || masks || r.strength < 1) expect(r.image, "image", image_.channels);  // else the conditioner checks it
  expect(r.mask, "mask", 1);
  if (r.mask.defined() && !r.image.defined()) throw ConfigError("a mask needs an image it is laid over");
  if (!(r.strength > 0 && r.strength <= 1)) throw ConfigError(fmt::format("strength = {} is outside (0, 1]", r.strength));
  if (r.latents.defined() && (r.image.defined() || r.mask.defined() || concat))
    throw ConfigError("latents to start from are instead of an image and its mask, of a model that needs neither");
  if (r.refining && (r.mask.defined() || concat)) throw ConfigError("a refiner cannot inpaint, and a mask or an image is to be kept");
  if (r.strength < 1 && !r.image.defined() && !r.latents.defined()) throw ConfigError("a strength needs an image to start from");
}

void SamplingRun::choose_steps() {
  const std::vector<double> all = distinct_levels(sigmas_for(*options_.spacing, latent_, *model_.options().noise, options_.steps));
  const int64_t steps = int64_t(all.size()) - 1, left = int64_t(double(steps) * request_.strength);
  if (left == 0)
    throw ConfigError(
        fmt::format("strength {} of {} steps leaves no step to run; at least {:.4g}", request_.strength, steps, 1 / double(steps)));
  sigmas_.assign(all.begin() + (steps - left), all.end());
  whole_ = left == steps;
}

void SamplingRun::encode_known() {
  if (model_.concat_image() && request_.strength == 1) return;  // the image is a condition of the network, not the start of the run
  const at::Device device = model_.compute().device;
  if (request_.image.defined()) {
    std::vector<Tensor> moments;
    for (const Tensor& part : request_.image.split(request_.batch))
      moments.push_back(checked_moments(model_.autoencoder(), part.to(device)));
    known_ = at::cat(moments);
  }
  if (request_.mask.defined()) {
    mask_ = request_.mask.to(device, at::kFloat);
    if (mask_.size(2) != latent_.height || mask_.size(3) != latent_.width)
      mask_ = at::upsample_nearest2d(mask_, {latent_.height, latent_.width});
  }
}

/// noise: N(0, 1). Returns, without an image, noise of the schedule's starting spread; with one, z + sigma noise, except in places that a
/// mask generates in a run of all steps.
Tensor SamplingRun::initial(const Tensor& noise, const Part& part) const {
  const double sigma = sigmas_.front();
  const Tensor fresh = noise * start_std(sigma);
  if (!part.known.defined()) return fresh;
  const Tensor noised = part.known + noise * sigma;
  if (!mask_.defined() || !whole_) return noised;
  const Tensor mask = rows_of(mask_, part.first, part.count);
  return fresh * mask + noised * (1 - mask);
}

Condition SamplingRun::condition_of(const Part& part, std::shared_ptr<const PromptPlan>& plan) const {
  const Compute& compute = model_.compute();
  const auto begin = request_.images.begin() + part.first;
  const std::vector<Annotation> wanted(begin, begin + part.count);
  const auto on_device = [&](const Tensor& t) { return t.defined() ? rows(t, part).to(compute.device) : t; };
  stop_if_asked();
  const bool concat = model_.concat_image();
  const auto encode = [&](const std::vector<Annotation>& annotations, bool of_images, int64_t share = 0) {
    const nn::OneCallScope once;
    return calling(model_.encoder(), "encode()", [&] {
      return model_.encoder().encode({.annotations = annotations,
                                      .dtype = compute.dtype,
                                      .device = compute.device,
                                      .shape = image_,
                                      .images = of_images ? on_device(request_.image) : Tensor(),
                                      .masks = of_images ? on_device(request_.mask) : Tensor(),
                                      .first_stage = &model_.autoencoder(),
                                      .normal = part.normal(),
                                      .reading = &readings_[size_t(share)]});
    });
  };
  const PromptOptions& prompts = options_.prompts;
  const int64_t steps = int64_t(sigmas_.size()) - 1;
  if (readings_.size() > 1 || (prompts.changes && (regions_.defined() || changes(wanted, steps)))) {
    if (concat)
      throw ConfigError(fmt::format("sample.prompts.{}: is for models that make images of words alone, and this one is given an image",
                                    readings_.size() > 1 ? "clip_skips" : "changes"));
    plan = std::make_shared<const PromptPlan>(
        PlannedPrompts{wanted, steps, needs_empty(options_.guidance, wanted), prompts.changes, regions_, part.first, std::ssize(readings_)},
        [&](const std::vector<Annotation>& variants, int64_t share) { return encode(variants, false, share).to(compute.device); });
  }
  const auto encode_images = [&](const std::vector<Annotation>& images) { return encode(images, true); };
  Condition condition = plan ? plan->first() : encode_with_empty(options_.guidance, wanted, encode_images);
  set_guides(condition, labels_of(wanted), part.known, rows_of(mask_, part.first, part.count));
  if (controls_ && !plan) controls_->number_rows(condition, part.first, part.count);
  return condition.to(compute.device);
}

SamplingRun::Start SamplingRun::start(int64_t first, int64_t count) const {
  auto noise = noise_of(options_, request_, first, count);
  Part part{first, count, *noise};
  // The order of the draws is diffusers': the given image's latent, the noise, then what the condition draws.
  if (request_.latents.defined())
    part.known = rows_of(request_.latents, first, count).to(model_.compute().device, at::kFloat);
  else if (known_.defined())
    part.known = rows_of(model_.autoencoder().latents_of(rows(known_, part), part.normal()), 0, count);
  const at::TensorOptions type = at::TensorOptions().dtype(at::kFloat).device(model_.compute().device);
  const Tensor like = at::empty({count, latent_.channels, latent_.height, latent_.width}, type);
  Tensor x = request_.initial_noise.defined() ? request_.initial_noise.narrow(0, first, count).to(like.options())
                                              : varied(noise->draw(like, sigmas_[0], sigmas_[0]), options_, request_, first);
  x = initial(x, part);
  std::shared_ptr<const PromptPlan> plan;
  Condition condition = condition_of(part, plan);
  return {std::move(noise), std::move(part), std::move(x), std::move(condition), std::move(plan)};
}

/// Returns the images of one batch, on the host.
Tensor SamplingRun::sample(int64_t first, int64_t count) const {
  const auto [noise, part, begin, condition, plan] = start(first, count);
  const NoiseSchedule& schedule = *model_.options().noise;
  Tensor x = begin;
  Run run{condition, *noise, {}, &schedule};
  if (request_.observer) run.observer = observer(first, 0);
  const std::vector<int64_t> shape = x.sizes().vec();
  const RunMemory memory(noise_of(options_, request_, first, count, 5), sigmas_);
  follow(plan);
  const std::vector<double> own(sigmas_.begin(), sigmas_.begin() + own_steps_ + 1);
  x = calling(*options_.sampler, "sample()", [&] { return options_.sampler->sample(*denoiser_, x, own, run); });
  expect_shape(options_.sampler.get(), "sample()", x, shape);
  if (refiner_)
    x = refiner_->sample(x, {sigmas_.begin() + own_steps_, sigmas_.end()}, first, *noise, noise_of(options_, request_, first, count, 6),
                         request_.observer ? observer(first, own_steps_) : nullptr);
  if (const double last = sigmas_.back(); last > 0) {
    x = x * schedule.signal(last);                  // a first stage knows the network's frame
    if (mask_.defined() && part.known.defined()) {  // what is known ends clean
      const Tensor mask = rows_of(mask_, part.first, part.count);
      x = x * mask + part.known * (1 - mask);
    }
  }
  check_sampled(x);
  if (request_.ended) request_.ended(x);
  return decode_sampled(model_.autoencoder(), x, image_, options_.tile).to(at::kFloat).cpu();
}

Tensor SamplingRun::sample_or_advise(int64_t first, int64_t count) const {
  std::string asked;
  try {
    return sample(first, count);
  } catch (const std::exception& e) {
    const auto memory = out_of_memory(e);
    if (!memory) throw;
    asked = *memory;
  }
  const int64_t most = options_.noise_order == NoiseOrder::batch ? 0 : count / 2;
  const int64_t fits = largest_that_fits(most, 1, [&](int64_t images) {
    const Start s = start(first, images);
    denoiser_->denoise(s.x, sigmas_.front(), s.condition);
  });
  throw ConfigError(fmt::format("there is not enough memory{} to sample {} image{} of {}x{}: {}", asked, count,
                                count == 1 ? "" : "s at once", image_.width, image_.height,
                                fits > 0    ? fmt::format("batches of {} fit", fits)
                                : count > 1 ? "fewer images per batch, smaller images or a smaller model need less"
                                            : "smaller images or a smaller model need less"));
}

void SamplingRun::each_batch(const std::function<void(int64_t, const Tensor&)>& take) const {
  const int64_t batch = options_.noise_order == NoiseOrder::batch ? count() : request_.batch;
  for (int64_t first = 0; first < count(); first += batch) take(first, sample_or_advise(first, std::min(batch, count() - first)));
}

Tensor SamplingRun::images() const {
  std::vector<Tensor> images;
  each_batch([&](int64_t first, const Tensor& made) {
    images.push_back(made);
    if (request_.made) request_.made(first, made);
  });
  if (images.empty()) return at::empty({0, image_.channels, image_.height, image_.width});
  return at::cat(images);
}

}  // namespace

Tensor sample_images(const Pipeline& model, const SampleRequest& request, const SampleOptions& options) {
  const nn::MemoryPoolScope keep;
  const at::NoGradGuard no_grad;
  return SamplingRun(model, request, options).images();
}

void sample_batches(const Pipeline& model, const SampleRequest& request, const SampleOptions& options) {
  const nn::MemoryPoolScope keep;
  const at::NoGradGuard no_grad;
  SamplingRun(model, request, options).each_batch(request.made);
}

std::shared_ptr<const Denoiser> guided_denoiser(const Pipeline& model, const SampleOptions& options, const ModelSource& models) {
  return guided_denoiser(model, options, models, model.latent());
}

std::vector<std::string> requestable_classes(const Pipeline& model, const SampleOptions& options, const ModelSource& models) {
  const int64_t count = model.options().conditioner->traits().classes;
  if (count == 0) {
    for (const auto& g : options.guidance)
      if (std::vector<std::string> names = g->classes(models); !names.empty()) return names;
    return {};
  }
  std::vector<std::string> names = model.options().class_names;
  for (int64_t i = int64_t(names.size()); i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

}  // namespace brume
