#include "brume/diffusion/pipeline.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "brume/core/boundary.h"
#include "brume/core/codes.h"
#include "brume/core/interruption.h"
#include "brume/interop/lora.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/int8_layers.h"
#include "brume/nn/ops/one_call_scope.h"
#include "brume/nn/ops/packed_weight.h"
#include "brume/weights/int8_tensors.h"
#include "brume/weights/model_weights.h"

namespace brume {
/// D(x) = c_skip x + c_out F(c_in x, c_noise): the only place between the sigma frame and the network's own.
class Pipeline::NetworkDenoiser final : public Denoiser {
 public:
  NetworkDenoiser(const Pipeline& p, TimestepRounding rounding, std::vector<double> steps, Taps taps, CallTaps call_taps)
      : p_(p), rounding_(rounding), steps_(std::move(steps)), taps_(std::move(taps)), call_taps_(std::move(call_taps)) {
    if (!taps_.empty()) taps_.check(p_.network_->tap_points());
  }
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const std::vector<double> sigmas(size_t(x.size(0)), sigma);
    const auto [f, variance, log_variance] = p_.call(x, sigmas, condition, nullptr, x.scalar_type(), rounding(sigma), taps_, call_taps_);
    const auto finite = [](const Tensor& t) { return std::isfinite(t.detach().sum().item<double>()); };
    if (!finite(f) && finite(x))  // else a sampler made it, of which Run::report tells
      throw ConfigError(fmt::format("the network gave NaN or Inf at sigma = {:.6g}; nothing was written", sigma));
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
  Taps taps_;
  CallTaps call_taps_;
};

class Pipeline::Trainable final : public TrainableModel {
 public:
  Trainable(const Pipeline& p, at::Generator& random, const Taps& taps, const CallTaps& call_taps)
      : p_(p), random_(random), taps_(taps), call_taps_(call_taps) {}
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const override {
    return p_.call(x, sigmas, condition, &random_, at::kFloat, TimestepRounding::exact, taps_, call_taps_);
  }
  const NoiseSchedule& schedule() const override { return *p_.options_.noise; }
  const Parameterization& parameterization() const override { return *p_.options_.parameterization; }
  LearnedVariance variance() const override { return p_.options_.variance; }

 private:
  const Pipeline& p_;
  at::Generator& random_;
  const Taps& taps_;
  const CallTaps& call_taps_;
};

Pipeline::Pipeline(const ModelOptions& options, const Compute& compute, uint64_t seed, const Files* stored, const ModelSource& models)
    : options_(options), compute_(compute) {
  options_.check();
  const nn::SkipInit follow(stored != nullptr);
  autoencoder_ = options_.autoencoder.make({options_.image, mix_seed(seed, 2), stored, &models, compute_.dtype});
  if (of_codes(*options_.parameterization) && autoencoder_->codes() != latent().channels)
    throw ConfigError("model.parameterization gives logits of codes, and the latents of model.autoencoder are none; set it to codes");
  network_ = options_.network.make(options_.network_context(latent(), mix_seed(seed, 3)));
  encoder_ = options_.conditioner->encoder({mix_seed(seed, 4), stored});
  for (Weight& w : weights())
    if (!compute_.device.is_cpu()) w.tensor.set_data(w.tensor.to(compute_.device));
}

Pipeline::Pipeline(const ModelOptions& options, const Compute& compute, const StoredWeights& stored, const ModelSource& models)
    : Pipeline(options, compute, 0, &stored.files, models) {
  take(stored);
  freeze();
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
  if (!compute_.int8 || int8_) return;
  int8_ = std::make_shared<nn::Int8Layers>();
  const Network::Context context = options_.network_context(latent(), 0);
  int8_->add_inner("network.", network_->weights(), context.input.channels + context.image_channels, context.out_channels);
}

void Pipeline::take(const StoredWeights& stored) {
  const at::NoGradGuard no_grad;
  std::vector<Weight> all = weights();
  Int8Tensors file = int8_in(stored.source, stored.tensors);
  // Integers stay integers if layers multiply them and nothing is added to them; else they become the numbers they stand for.
  const auto integers = [&](const Weight& w) { return compute_.int8 && stored.loras.empty() && stays(w) && file.weights.contains(w.name); };
  for (const Weight& w : all)
    if (integers(w)) file.others.push_back({w.name, at::empty({1}).expand(file.weights.at(w.name).values.sizes())});
  for (const auto& [name, values] : file.weights) {
    const auto of = std::find_if(all.begin(), all.end(), [&, &name = name](const Weight& w) { return w.name == name; });
    if (of == all.end() || !integers(*of)) file.others.push_back({name, from_int8(values)});
  }
  if (compute_.int8 && !file.weights.empty()) int8_ = std::make_shared<nn::Int8Layers>();  // the file says which
  std::vector<Tensor> found = fitting(stored.source, file.others, all);
  std::vector<Weight> originals = all;
  for (size_t i = 0; i < all.size(); ++i) originals[i].tensor = found[i];
  const std::map<std::string, Tensor> merged = merged_loras(stored.loras, originals, compute_.dtype);
  for (size_t i = 0; i < all.size(); ++i) {
    Tensor& target = all[i].tensor;
    const auto changed = merged.find(all[i].name);
    if (changed != merged.end()) found[i] = changed->second;
    const at::ScalarType type = all[i].trainable ? compute_.dtype : target.scalar_type();
    target.set_requires_grad(false);
    if (integers(all[i])) {
      const Int8Values& values = file.weights.at(all[i].name);
      target.set_data(values.values);
      int8_->add(all[i].name, target, values.scales);
      continue;
    }
    if (stays(all[i])) {
      target.set_data(found[i]);
      if (int8_ && file.weights.contains(all[i].name)) int8_->add(all[i].name, target);
      continue;
    }
    target.set_data(found[i].to(target.device(), type, false, true).contiguous(target.suggest_memory_format()));
  }
}

double Pipeline::c_noise(double sigma, TimestepRounding rounding) const {
  const double c_noise = noise_quantity(network_->quantity(), sigma, *options_.noise);
  if (rounding == TimestepRounding::exact || network_->quantity() != NoiseQuantity::timestep) return c_noise;
  // Without a table, as in flow matching, there is no nearest entry: ComfyUI then gives the time as it is.
  if (rounding == TimestepRounding::nearest && options_.noise->timesteps() == 0) return c_noise;
  constexpr double slack = 1e-6;  // a training time stays itself
  return rounding == TimestepRounding::nearest ? std::nearbyint(c_noise) : std::floor(c_noise + slack);
}

TrainableModel::Prediction Pipeline::call(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition,
                                          at::Generator* dropout, at::ScalarType as, TimestepRounding rounding, const Taps& taps,
                                          const CallTaps& call_taps) const {
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
  stop_if_asked();
  const Tensor levels = at::tensor(noise).to(x.device());
  const Tensor in = input.to(compute_.dtype);
  std::optional<nn::Int8Scope> integers;
  if (int8_ && !nn::Int8Scope::active()) integers.emplace(int8_.get());
  const Taps more = call_taps ? call_taps(taps, sigmas.front(), in, levels, condition) : Taps();
  const Tensor f =
      calling(*network_, "forward()", [&] { return network_->forward(in, levels, condition, dropout, call_taps ? more : taps); });
  std::vector<int64_t> expected = x.sizes().vec();
  if (options_.variance != LearnedVariance::none) expected[1] *= 2;
  expect_shape(network_.get(), "forward()", f, expected);
  const Tensor out = f.to(as), log_variance = dropout ? network_->log_variance(levels) : Tensor();
  if (options_.variance == LearnedVariance::none) return {out, {}, log_variance};
  return {out.narrow(1, 0, x.size(1)), out.narrow(1, x.size(1), x.size(1)), log_variance};
}

std::shared_ptr<const Denoiser> Pipeline::denoiser(TimestepRounding rounding, std::vector<double> steps, Taps taps,
                                                   CallTaps call_taps) const {
  return std::make_shared<NetworkDenoiser>(*this, rounding, std::move(steps), std::move(taps), std::move(call_taps));
}

bool Pipeline::concat_image() const { return bool(options_.conditioner->traits().image_channels); }

Condition Pipeline::condition(const std::vector<Annotation>& annotations, const PromptReading* reading) const {
  stop_if_asked();
  const nn::OneCallScope once;
  return calling(*encoder_, "encode()",
                 [&] {
                   return encoder_->encode({.annotations = annotations,
                                            .dtype = compute_.dtype,
                                            .device = compute_.device,
                                            .shape = options_.image,
                                            .reading = reading});
                 })
      .to(compute_.device);
}

Tensor Pipeline::loss(const Objective& objective, const Examples& batch, Training& training, at::Generator& random, const Taps& taps,
                      const CallTaps& call_taps) const {
  if (!taps.empty()) taps.check(network_->tap_points());
  const Tensor given = batch.images.to(compute_.device);
  const Tensor images = batch.encoded ? Tensor() : given;
  ImageShape shape = options_.image;  // or that of a bucket
  if (!batch.encoded) shape.height = given.size(2), shape.width = given.size(3);
  const Condition condition =
      calling(*encoder_, "encode()", [&] {
        ConditionRequest request{batch.annotations, &random, compute_.dtype, compute_.device, shape, images, {}, autoencoder_.get()};
        request.reading = batch.reading;
        return encoder_->encode(request);
      }).to(compute_.device);
  const Tensor latents = calling(*autoencoder_, "encode_moments()", [&] {
    const at::NoGradGuard no_grad;
    const Tensor known = batch.encoded ? given : batch.moments.defined() ? batch.moments.to(compute_.device) : Tensor();
    return autoencoder_->latents_of(known.defined() ? known : autoencoder_->encode_moments(given), &random);
  });
  const ImageShape z = autoencoder_->latent(shape);
  expect_shape(autoencoder_.get(), "latents_of()", latents, {int64_t(batch.annotations.size()), z.channels, z.height, z.width});
  const Tensor loss = calling(
      objective, "loss()", [&] { return objective.loss(Trainable(*this, random, taps, call_taps), latents, condition, training, random); });
  expect_loss(&objective, "loss()", loss);
  return loss;
}

}  // namespace brume
