#include "brume/diffusion/classifier_pipeline.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/core/boundary.h"
#include "brume/core/noise.h"
#include "brume/core/rows.h"

namespace brume {
namespace {

/// Returns one value per image, [B, 1, 1, 1].
Tensor each(const std::vector<float>& values, const Tensor& like) {
  return at::tensor(values).view({int64_t(values.size()), 1, 1, 1}).to(like.device(), like.scalar_type());
}

/// Draws times evenly; returns their sigmas.
std::vector<double> draw_sigmas(const NoiseSchedule& schedule, int64_t count, at::Generator& random) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const Tensor t = draw_rows(count, [&](int64_t n) {
    return schedule.timesteps() > 0 ? at::randint(schedule.timesteps(), {n}, random, options)
                                    : at::rand({n}, random, options) * (schedule.t_max() - schedule.t_min()) + schedule.t_min();
  });
  std::vector<double> sigmas;
  for (int64_t i = 0; i < count; ++i) sigmas.push_back(schedule.sigma(t.data_ptr<double>()[i]));
  return sigmas;
}

}  // namespace

ClassifierPipeline::ClassifierPipeline(const ClassifierOptions& options, const Compute& compute, uint64_t seed)
    : options_(options), compute_(compute) {
  options_.check();
  network_ = options_.network.make(options_.network_context(mix_seed(seed, 3)));
  for (Weight& w : weights())
    if (!compute_.device.is_cpu()) w.tensor.set_data(w.tensor.to(compute_.device));
}

std::vector<Weight> ClassifierPipeline::weights() const {
  std::vector<Weight> all;
  for (Weight& w : network_->weights()) all.push_back({"network." + w.name, w.tensor, w.trainable});
  return all;
}

void ClassifierPipeline::freeze() {
  const at::NoGradGuard no_grad;
  for (Weight& w : weights()) {
    w.tensor.set_requires_grad(false);
    if (w.trainable) w.tensor.set_data(w.tensor.to(compute_.dtype));
  }
}

Classifier::Output ClassifierPipeline::classify(const Tensor& x, const std::vector<double>& sigmas, at::Generator* dropout) const {
  std::vector<float> scale, levels;
  for (double sigma : sigmas) {
    if (options_.noise) {
      const NoiseSchedule& schedule = *options_.noise->schedule;
      sigma = std::max(sigma, schedule.sigma(schedule.t_min()));
      scale.push_back(float(schedule.signal(sigma)));
      levels.push_back(float(noise_quantity(network_->quantity(), sigma, schedule)));
    } else {
      if (sigma != 0)
        throw ConfigError(fmt::format("this classifier was trained on clean images, and is asked about noise (sigma = {})", sigma));
      levels.push_back(0);
    }
  }
  const Tensor images = x.to(compute_.device);
  const Tensor input = options_.noise ? images * each(scale, images) : images;
  const Classifier::Output y = calling(
      *network_, "forward()", [&] { return network_->forward(input.to(compute_.dtype), at::tensor(levels).to(compute_.device), dropout); });
  expect_shape(network_.get(), "forward()", y.logits, {x.size(0), options_.classes});
  return {y.features.to(at::kFloat), y.logits.to(at::kFloat)};
}

Classifier::Output ClassifierPipeline::classify(const Tensor& images) const {
  const at::NoGradGuard no_grad;
  return classify(images, std::vector<double>(size_t(images.size(0)), 0.0));
}

ClassifierPipeline::Loss ClassifierPipeline::loss(const Tensor& images, const std::vector<Annotation>& annotations, double label_smoothing,
                                                  at::Generator& random) const {
  const Tensor wanted = labels(annotations).to(compute_.device);
  std::vector<double> sigmas(annotations.size(), 0.0);
  Tensor x = images;
  if (options_.noise) {
    sigmas = draw_sigmas(*options_.noise->schedule, x.size(0), random);
    const Tensor noise = draw_rows(x.size(0), [&](int64_t n) {
      return at::randn({n, x.size(1), x.size(2), x.size(3)}, random, at::TensorOptions().dtype(x.scalar_type()));
    });
    x = x + noise * each({sigmas.begin(), sigmas.end()}, x);
  }
  const Tensor logits = classify(x, sigmas, &random).logits;
  const double right = (logits.argmax(1) == wanted).sum().item<double>();
  return {at::cross_entropy_loss(logits, wanted, {}, at::Reduction::Mean, -100, label_smoothing), right / double(annotations.size())};
}

Tensor ClassifierPipeline::labels(const std::vector<Annotation>& annotations) const {
  const Tensor labels = at::empty({int64_t(annotations.size())}, at::kLong);
  int64_t* out = labels.data_ptr<int64_t>();
  for (const Annotation& a : annotations) {
    if (a.label < 0) throw ConfigError("an image has no class, and a classifier needs one");
    if (a.label >= options_.classes)
      throw ConfigError(fmt::format("class {} is out of range: this classifier has {}, 0 to {}", a.label,
                                    counted(options_.classes, "class"), options_.classes - 1));
    *out++ = a.label;
  }
  return labels;
}

}  // namespace brume
