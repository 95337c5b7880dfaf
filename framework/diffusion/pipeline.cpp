#include "diffusion/pipeline.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace brume {

/// D(x) = c_skip x + c_out F(c_in x, c_noise): the only place between the sigma frame and the network's own.
class Pipeline::NetworkDenoiser final : public Denoiser {
 public:
  explicit NetworkDenoiser(const Pipeline& p) : p_(p) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const auto [f, variance] = p_.call(x, std::vector<double>(size_t(x.size(0)), sigma), condition, nullptr, x.scalar_type());
    const Parameterization& q = *p_.options_.parameterization;
    const double skip = q.c_skip(sigma);
    Estimate d;
    d.variance = variance;
    d.x0 = skip == 0 ? f * q.c_out(sigma) : x * skip + f * q.c_out(sigma);
    return d;
  }

 private:
  const Pipeline& p_;
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

Pipeline::Pipeline(const ModelOptions& options, const Compute& compute, uint64_t seed) : options_(options), compute_(compute) {
  options_.check();
  autoencoder_ = options_.autoencoder.make({options_.image, mix_seed(seed, 2)});
  network_ = options_.network.make(options_.network_context(autoencoder_->latent(), mix_seed(seed, 3)));
  for (Weight& w : weights())
    if (!compute_.device.is_cpu()) w.tensor.set_data(w.tensor.to(compute_.device));
}

ImageShape Pipeline::latent() const { return autoencoder_->latent(); }

std::vector<Weight> Pipeline::weights() const {
  std::vector<Weight> all;
  for (Weight& w : network_->weights()) all.push_back({"network." + w.name, w.tensor, w.trainable});
  for (Weight& w : autoencoder_->weights()) all.push_back({"autoencoder." + w.name, w.tensor, false});
  return all;
}

void Pipeline::freeze() {
  const at::NoGradGuard no_grad;
  for (Weight& w : weights()) {
    w.tensor.set_requires_grad(false);
    if (w.trainable) w.tensor.set_data(w.tensor.to(compute_.dtype));
  }
}

TrainableModel::Prediction Pipeline::call(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition,
                                          at::Generator* dropout, at::ScalarType as) const {
  std::vector<float> scale, told;
  for (const double s : sigmas) {
    scale.push_back(float(options_.parameterization->c_in(s, *options_.noise)));
    told.push_back(float(noise_quantity(network_->quantity(), s, *options_.noise)));
  }
  std::vector<int64_t> shape(size_t(x.dim()), 1);
  shape[0] = x.size(0);
  const bool same = std::all_of(scale.begin(), scale.end(), [&](float s) { return s == scale.front(); });
  const double c_in = options_.parameterization->c_in(sigmas.front(), *options_.noise);
  const Tensor input = same ? x * c_in : x * at::tensor(scale).view(shape).to(x.device(), x.scalar_type());
  const Tensor out = network_->forward(input.to(compute_.dtype), at::tensor(told).to(x.device()), condition, dropout).to(as);
  if (options_.variance == LearnedVariance::none) return {out, {}};
  return {out.narrow(1, 0, x.size(1)), out.narrow(1, x.size(1), x.size(1))};
}

std::shared_ptr<const Denoiser> Pipeline::denoiser() const { return std::make_shared<NetworkDenoiser>(*this); }

Tensor Pipeline::sample(const SampleRequest& request, const SampleOptions& options) const {
  const at::NoGradGuard no_grad;
  const int64_t count = int64_t(request.images.size());
  if (options.noise_order == NoiseOrder::batch && request.batch < count)
    throw ConfigError(
        fmt::format("noise order 'batch' draws all {} images at once; raise the batch from {} or use per_image", count, request.batch));
  options.check(options_);
  const ImageShape z = latent();
  if (request.initial_noise.defined() && request.initial_noise.sizes() != at::IntArrayRef({count, z.channels, z.height, z.width}))
    throw ConfigError(fmt::format("the initial noise has shape [{}], expected [{}, {}, {}, {}]",
                                  fmt::join(request.initial_noise.sizes(), ", "), count, z.channels, z.height, z.width));
  const std::vector<double> sigmas = options.spacing->sigmas(*options_.noise, options.steps);
  std::shared_ptr<const Denoiser> denoiser = this->denoiser();
  for (const auto& g : options.guidance) denoiser = g->wrap(denoiser, {options_.noise, *request.models});

  std::vector<Tensor> images;
  for (int64_t first = 0; first < count; first += request.batch) {
    const int64_t n = std::min(request.batch, count - first);
    const std::vector<Annotation> wanted(request.images.begin() + first, request.images.begin() + first + n);
    const Condition condition = this->condition(wanted);
    const auto noise =
        options.noise_order == NoiseOrder::batch ? batch_noise(request.seed) : per_image_noise(request.seed, request.first + first);
    Tensor x = at::empty({n, z.channels, z.height, z.width}, at::TensorOptions().dtype(at::kFloat).device(compute_.device));
    x = request.initial_noise.defined() ? request.initial_noise.narrow(0, first, n).to(x.options()) : noise->draw(x, sigmas[0], sigmas[0]);
    x = x * options_.noise->start_std(sigmas[0]);
    Run run{condition, *noise, {}, options_.noise.get()};
    if (request.observer) run.observer = [&](const Step& step) { return request.observer(first, step); };
    x = options.sampler->sample(*denoiser, x, sigmas, run);
    images.push_back(autoencoder_->decode(x).to(at::kFloat).cpu());
  }
  if (images.empty()) return at::empty({0, options_.image.channels, options_.image.height, options_.image.width});
  return at::cat(images);
}

Condition Pipeline::condition(const std::vector<Annotation>& annotations) const {
  return options_.conditioner->encode(annotations, nullptr).to(compute_.device);
}

Tensor Pipeline::loss(const Objective& objective, const Tensor& images, const std::vector<Annotation>& annotations, Training& training,
                      at::Generator& random) const {
  const Condition condition = options_.conditioner->encode(annotations, &random).to(compute_.device);
  const Tensor latents = [&] {
    const at::NoGradGuard no_grad;
    return autoencoder_->encode(images.to(compute_.device));
  }();
  return objective.loss(Trainable(*this, random), latents, condition, training, random);
}

}  // namespace brume
