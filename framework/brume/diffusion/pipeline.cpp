#include "brume/diffusion/pipeline.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "brume/diffusion/decoding.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/memory_pool.h"
#include "brume/nn/ops/packed_weight.h"
#include "brume/weights/model_weights.h"

namespace brume {
namespace {

/// The classes asked for; undefined where one is not.
Tensor labels_of(const std::vector<Annotation>& wanted) {
  std::vector<int64_t> labels;
  for (const Annotation& a : wanted) labels.push_back(a.label);
  return std::any_of(labels.begin(), labels.end(), [](int64_t label) { return label < 0; }) ? Tensor() : at::tensor(labels);
}

/// Tells guidances, with the condition and without it, what they go by.
void set_guides(Condition& condition, const Tensor& labels, const Tensor& known, const Tensor& mask) {
  condition.labels = labels;
  condition.known = known;
  condition.mask = mask;
  if (!condition.null) return;
  Condition null = *condition.null;
  set_guides(null, labels, known, mask);
  condition.null = std::make_shared<Condition>(std::move(null));
}

}  // namespace

/// D(x) = c_skip x + c_out F(c_in x, c_noise): the only place between the sigma frame and the network's own.
class Pipeline::NetworkDenoiser final : public Denoiser {
 public:
  NetworkDenoiser(const Pipeline& p, TimestepRounding rounding, std::vector<double> steps)
      : p_(p), rounding_(rounding), steps_(std::move(steps)) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const auto [f, variance] =
        p_.call(x, std::vector<double>(size_t(x.size(0)), sigma), condition, nullptr, x.scalar_type(), rounding(sigma));
    const Parameterization& q = *p_.options_.parameterization;
    const double skip = q.c_skip(sigma);
    Estimate d;
    d.variance = variance;
    d.x0 = skip == 0 ? f * q.c_out(sigma) : x * skip + f * q.c_out(sigma);
    return d;
  }

 private:
  TimestepRounding rounding(double sigma) const {
    if (rounding_ != TimestepRounding::nearest_step) return rounding_;
    return std::find(steps_.begin(), steps_.end(), sigma) != steps_.end() ? TimestepRounding::nearest : TimestepRounding::exact;
  }
  const Pipeline& p_;
  TimestepRounding rounding_;
  std::vector<double> steps_;
};

class Pipeline::Trainable final : public TrainableModel {
 public:
  Trainable(const Pipeline& p, at::Generator& random) : p_(p), random_(random) {}
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const override {
    return p_.call(x, sigmas, condition, &random_, at::kFloat);
  }
  const NoiseSchedule& schedule() const override { return *p_.options_.noise; }
  const Parameterization& parameterization() const override { return *p_.options_.parameterization; }
  LearnedVariance variance() const override { return p_.options_.variance; }

 private:
  const Pipeline& p_;
  at::Generator& random_;
};

Pipeline::Pipeline(const ModelOptions& options, const Compute& compute, uint64_t seed, const Files* stored, const ModelSource& models)
    : options_(options), compute_(compute) {
  options_.check();
  const nn::SkipInit follow(stored != nullptr);
  autoencoder_ = options_.autoencoder.make({options_.image, mix_seed(seed, 2), stored, &models, compute_.dtype});
  network_ = options_.network.make(options_.network_context(latent(), mix_seed(seed, 3)));
  encoder_ = options_.conditioner->encoder({mix_seed(seed, 4), stored});
  for (Weight& w : weights())
    if (!compute_.device.is_cpu()) w.tensor.set_data(w.tensor.to(compute_.device));
}

std::vector<Weight> Pipeline::weights() const {
  std::vector<Weight> all = prefixed("network.", network_->weights());
  for (Weight& w : prefixed("conditioner.", encoder_->weights())) all.push_back(w);
  for (Weight& w : prefixed("autoencoder.", autoencoder_->weights())) {
    w.trainable = false;
    all.push_back(w);
  }
  return all;
}

bool Pipeline::stays(const Weight& w) const { return w.any_dtype && w.tensor.device().is_cpu() && nn::packing(compute_.dtype); }

void Pipeline::freeze() {
  const at::NoGradGuard no_grad;
  for (Weight& w : weights()) {
    w.tensor.set_requires_grad(false);
    if (w.trainable && !stays(w)) w.tensor.set_data(w.tensor.to(compute_.dtype));
  }
}

void Pipeline::take(const std::string& source, const NamedTensors& tensors) {
  const at::NoGradGuard no_grad;
  std::vector<Weight> all = weights();
  const std::vector<Tensor> found = fitting(source, tensors, all);
  for (size_t i = 0; i < all.size(); ++i) {
    Tensor& target = all[i].tensor;
    const at::ScalarType type = all[i].trainable ? compute_.dtype : target.scalar_type();
    target.set_requires_grad(false);
    if (stays(all[i])) {
      target.set_data(found[i]);
      continue;
    }
    target.set_data(found[i].to(target.device(), type, false, true).contiguous(target.suggest_memory_format()));
  }
}

double Pipeline::c_noise(double sigma, TimestepRounding rounding) const {
  const double exact = noise_quantity(network_->quantity(), sigma, *options_.noise);
  if (rounding == TimestepRounding::exact || network_->quantity() != NoiseQuantity::timestep) return exact;
  constexpr double slack = 1e-6;  // a training time stays itself
  return rounding == TimestepRounding::nearest ? std::nearbyint(exact) : std::floor(exact + slack);
}

TrainableModel::Prediction Pipeline::call(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition,
                                          at::Generator* dropout, at::ScalarType as, TimestepRounding rounding) const {
  std::vector<float> scale, noise;
  for (const double s : sigmas) {
    scale.push_back(float(options_.parameterization->c_in(s, *options_.noise)));
    noise.push_back(float(c_noise(s, rounding)));
  }
  std::vector<int64_t> shape(size_t(x.dim()), 1);
  shape[0] = x.size(0);
  const bool same = std::all_of(scale.begin(), scale.end(), [&](float s) { return s == scale.front(); });
  const double c_in = options_.parameterization->c_in(sigmas.front(), *options_.noise);
  const Tensor input = same ? x * c_in : x * at::tensor(scale).view(shape).to(x.device(), x.scalar_type());
  const Tensor out = network_->forward(input.to(compute_.dtype), at::tensor(noise).to(x.device()), condition, dropout).to(as);
  if (options_.variance == LearnedVariance::none) return {out, {}};
  return {out.narrow(1, 0, x.size(1)), out.narrow(1, x.size(1), x.size(1))};
}

std::shared_ptr<const Denoiser> Pipeline::denoiser(TimestepRounding rounding, std::vector<double> steps) const {
  return std::make_shared<NetworkDenoiser>(*this, rounding, std::move(steps));
}

std::shared_ptr<const Denoiser> Pipeline::guided(const SampleOptions& options, const ModelSource& models) const {
  return guided(options, models, latent());
}

std::shared_ptr<const Denoiser> Pipeline::guided(const SampleOptions& options, const ModelSource& models, const ImageShape& latent) const {
  options.check(options_);
  const GuidedModel model{options_.noise, models, options_.parameterization, options_.controls(), latent};
  std::vector<double> steps;
  if (options.timestep_rounding == TimestepRounding::nearest_step) steps = options.spacing->sigmas(*options_.noise, options.steps);
  std::shared_ptr<const Denoiser> denoiser = this->denoiser(options.timestep_rounding, std::move(steps));
  for (const auto& g : options.guidance) denoiser = g->wrap(denoiser, model);
  return denoiser;
}

std::vector<std::string> Pipeline::classes(const SampleOptions& options, const ModelSource& models) const {
  const int64_t count = options_.conditioner->classes();
  if (count == 0) {
    for (const auto& g : options.guidance)
      if (std::vector<std::string> names = g->classes(models); !names.empty()) return names;
    return {};
  }
  std::vector<std::string> names = options_.class_names;
  for (int64_t i = int64_t(names.size()); i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

/// Where a run starts: the sigmas it walks, and what is known of the images, one row or one an image.
struct Pipeline::Start {
  std::vector<double> sigmas;
  Tensor known, mask;  ///< moments of the given image, and what of it is to be made anew
  bool whole = true;   ///< every step is run
  PromptReading reading;
  static Tensor rows(const Tensor& t, int64_t first, int64_t n) {
    if (!t.defined()) return t;
    return t.size(0) == 1 ? t.expand({n, -1, -1, -1}) : t.narrow(0, first, n);
  }
};

/// The images of a batch: their numbers, noise, and latents of what is known of them.
struct Pipeline::Part {
  int64_t first, count;
  NoiseOrder order;
  Noise& noise;
  Tensor known{};
  /// A row each; one for all where one is given and drawn for all at once, as PyTorch users have it.
  Tensor rows(const Tensor& t) const {
    return t.defined() && t.size(0) == 1 && order == NoiseOrder::batch ? t : Start::rows(t, first, count);
  }
  Autoencoder::Normal normal() const {
    return [&noise = noise](const Tensor& like) { return noise.draw(like, 0, 0); };
  }
};

/// Inpainting of all steps begins from noise alone, as published inpainting does: at the first sigma the network sees start_std noise in
/// the place of z + sigma noise where the image is known, and from then on the latter.
class Pipeline::FromNoise final : public Denoiser {
 public:
  FromNoise(std::shared_ptr<const Denoiser> inner, double sigma, double std) : inner_(std::move(inner)), sigma_(sigma), std_(std) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (sigma != sigma_) return inner_->denoise(x, sigma, condition);
    const Tensor mask = condition.mask.to(x.scalar_type()), noise = (x - condition.known.to(x.scalar_type())) / sigma;
    return inner_->denoise(x * mask + noise * (1 - mask) * std_, sigma, condition);
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  double sigma_, std_;
};

bool Pipeline::concat_image() const { return options_.conditioner->image_channels(options_.image, latent()) > 0; }

ImageShape Pipeline::image_of(const SampleRequest& request) const {
  const ImageShape& own = options_.image;
  return {own.channels, request.height > 0 ? request.height : own.height, request.width > 0 ? request.width : own.width};
}

void Pipeline::check(const SampleRequest& request, const SampleOptions& options) const {
  const int64_t count = int64_t(request.images.size());
  if (options.noise_order == NoiseOrder::batch && request.batch < count)
    throw ConfigError(
        fmt::format("noise order 'batch' draws all {} images at once; raise the batch from {} or use per_image", count, request.batch));
  options.check(options_);
  const ImageShape image = image_of(request), z = autoencoder_->latent(image);
  if (const int64_t m = network_->multiple(); z.height % m || z.width % m) {
    const int64_t step = m * (image.height / z.height);
    const auto nearest = [&](int64_t side) { return std::max<int64_t>(1, (side + step / 2) / step) * step; };
    throw ConfigError(fmt::format("the network takes images whose sides are multiples of {}, and {} by {} are not; the nearest is {} by {}",
                                  step, image.height, image.width, nearest(image.height), nearest(image.width)));
  }
  if (request.initial_noise.defined() && request.initial_noise.sizes() != at::IntArrayRef({count, z.channels, z.height, z.width}))
    throw ConfigError(fmt::format("the initial noise has shape [{}], expected [{}, {}, {}, {}]",
                                  fmt::join(request.initial_noise.sizes(), ", "), count, z.channels, z.height, z.width));
  const auto expect = [&](const Tensor& t, const char* what, int64_t channels) {
    if (!t.defined()) return;
    const int64_t rows = t.dim() == 4 && t.size(0) == 1 ? 1 : count;
    if (t.sizes() != at::IntArrayRef({rows, channels, image.height, image.width}))
      throw ConfigError(fmt::format("the {} has shape [{}], expected [{}, {}, {}, {}]", what, fmt::join(t.sizes(), ", "), rows, channels,
                                    image.height, image.width));
  };
  const bool beside = concat_image(), masks = options_.conditioner->masks();
  if (beside && !request.image.defined()) throw ConfigError("this model makes images out of others, and none is given (--image FILE)");
  if (beside && request.mask.defined() && !masks)
    throw ConfigError("this model makes images out of others, whole ones: it takes no mask (--mask FILE)");
  if (!beside || masks || request.strength < 1) expect(request.image, "image", image.channels);  // else it says itself what it takes
  expect(request.mask, "mask", 1);
  if (request.mask.defined() && !request.image.defined()) throw ConfigError("a mask needs an image it is laid over");
  if (!(request.strength > 0 && request.strength <= 1)) throw ConfigError(fmt::format("strength = {} is outside (0, 1]", request.strength));
  if (request.strength < 1 && !request.image.defined()) throw ConfigError("a strength needs an image to start from");
}

Pipeline::Start Pipeline::start_of(const SampleRequest& request, std::vector<double> sigmas) const {
  Start start;
  const int64_t steps = int64_t(sigmas.size()) - 1, left = int64_t(double(steps) * request.strength);
  if (left == 0)
    throw ConfigError(
        fmt::format("strength {} of {} steps leaves no step to run; at least {:.4g}", request.strength, steps, 1 / double(steps)));
  start.sigmas.assign(sigmas.begin() + (steps - left), sigmas.end());
  start.whole = left == steps;
  if (concat_image() && request.strength == 1) return start;  // what is given is told to the network, and not begun from
  if (request.image.defined()) {
    std::vector<Tensor> moments;
    for (const Tensor& part : request.image.split(request.batch)) moments.push_back(autoencoder_->encode_moments(part.to(compute_.device)));
    start.known = at::cat(moments);
  }
  if (request.mask.defined()) {
    const ImageShape z = autoencoder_->latent(image_of(request));
    start.mask = request.mask.to(compute_.device, at::kFloat);
    if (start.mask.size(2) != z.height || start.mask.size(3) != z.width)
      start.mask = at::upsample_nearest2d(start.mask, {z.height, z.width});
  }
  return start;
}

/// Of the noise that a run starts from at sigma.
double Pipeline::start_std(double sigma, StartStd spread) const {
  return spread == StartStd::sigma ? sigma : options_.noise->start_std(sigma);
}

/// noise: N(0, 1). Without an image, x is noise of the schedule's starting spread; from one, z + sigma noise, but for what a mask wants
/// anew of a run of all steps.
Tensor Pipeline::initial(const Start& start, const Tensor& noise, const Part& part, StartStd spread) const {
  const double sigma = start.sigmas.front();
  const Tensor fresh = noise * start_std(sigma, spread);
  if (!part.known.defined()) return fresh;
  const Tensor noised = part.known + noise * sigma;
  if (!start.mask.defined() || !start.whole) return noised;
  const Tensor mask = Start::rows(start.mask, part.first, part.count);
  return fresh * mask + noised * (1 - mask);
}

namespace {
std::unique_ptr<Noise> noise_of(NoiseOrder order, uint64_t seed, int64_t first) {
  switch (order) {
    case NoiseOrder::per_image: return per_image_noise(seed, first);
    case NoiseOrder::batch: return batch_noise(seed);
    case NoiseOrder::brownian: return brownian_noise(seed, first);
  }
  throw std::logic_error("unknown order of noise");
}
}  // namespace

/// What the images of a batch are to be, as network and guidances know it.
Condition Pipeline::condition_of(const SampleRequest& request, const Start& start, const Part& part) const {
  const auto begin = request.images.begin() + part.first;
  const std::vector<Annotation> wanted(begin, begin + part.count);
  const auto there = [&](const Tensor& t) { return t.defined() ? part.rows(t).to(compute_.device) : t; };
  const ConditionRequest asked{.annotations = wanted,
                               .dtype = compute_.dtype,
                               .device = compute_.device,
                               .shape = image_of(request),
                               .images = there(request.image),
                               .masks = there(request.mask),
                               .first_stage = autoencoder_.get(),
                               .normal = part.normal(),
                               .reading = &start.reading};
  Condition condition = encoder_->encode(asked);
  set_guides(condition, labels_of(wanted), part.known, Start::rows(start.mask, part.first, part.count));
  return condition.to(compute_.device);
}

Tensor Pipeline::sample(const SampleRequest& request, const SampleOptions& options) const {
  const nn::MemoryPoolScope keep;
  const at::NoGradGuard no_grad;
  check(request, options);
  const int64_t count = int64_t(request.images.size());
  const ImageShape image = image_of(request), z = autoencoder_->latent(image);
  Start start = start_of(request, options.spacing->sigmas(*options_.noise, options.steps));
  start.reading = options.prompts.reading();
  std::shared_ptr<const Denoiser> denoiser = guided(options, *request.models, z);
  if (start.known.defined() && start.mask.defined() && start.whole)
    denoiser = std::make_shared<FromNoise>(denoiser, start.sigmas.front(), start_std(start.sigmas.front(), options.start));

  std::vector<Tensor> images;
  for (int64_t first = 0; first < count; first += request.batch) {
    const int64_t n = std::min(request.batch, count - first);
    const auto noise = noise_of(options.noise_order, request.seed, request.first + first);
    Part part{first, n, options.noise_order, *noise};
    // The order of the draws is diffusers': the given image's latent, the noise, then what the condition draws.
    if (start.known.defined()) part.known = Start::rows(autoencoder_->latents_of(part.rows(start.known), part.normal()), 0, n);
    const Tensor like = at::empty({n, z.channels, z.height, z.width}, at::TensorOptions().dtype(at::kFloat).device(compute_.device));
    Tensor x = request.initial_noise.defined() ? request.initial_noise.narrow(0, first, n).to(like.options())
                                               : noise->draw(like, start.sigmas[0], start.sigmas[0]);
    x = initial(start, x, part, options.start);
    const Condition condition = condition_of(request, start, part);
    Run run{condition, *noise, {}, options_.noise.get()};
    if (request.observer) run.observer = [&](const Step& step) { return request.observer(first, step); };
    x = options.sampler->sample(*denoiser, x, start.sigmas, run);
    if (const double last = start.sigmas.back(); last > 0) x = x * options_.noise->signal(last);  // a first stage knows the network's frame
    if (request.ended) request.ended(x);
    images.push_back(decode_sampled(*autoencoder_, x, image, options.tile).to(at::kFloat).cpu());
    if (request.made) request.made(first, images.back());
  }
  if (images.empty()) return at::empty({0, image.channels, image.height, image.width});
  return at::cat(images);
}

Condition Pipeline::condition(const std::vector<Annotation>& annotations) const {
  return encoder_->encode({annotations, nullptr, compute_.dtype, compute_.device}).to(compute_.device);
}

Tensor Pipeline::loss(const Objective& objective, const Examples& batch, Training& training, at::Generator& random) const {
  const Tensor given = batch.images.to(compute_.device);
  const Tensor images = batch.encoded ? Tensor() : given;
  const Condition condition =
      encoder_->encode({batch.annotations, &random, compute_.dtype, compute_.device, options_.image, images, {}, autoencoder_.get()})
          .to(compute_.device);
  const Tensor latents = [&] {
    const at::NoGradGuard no_grad;
    return autoencoder_->latents_of(batch.encoded ? given : autoencoder_->encode_moments(given), &random);
  }();
  return objective.loss(Trainable(*this, random), latents, condition, training, random);
}

}  // namespace brume
