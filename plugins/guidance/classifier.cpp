// Classifier guidance (Dhariwal & Nichol 2021, sec. 4), from a classifier of noisy images that `brume train` makes (classifier.noise).
//
//   D += scale sigma^2 grad_x log p(y | x)                                  Tweedie's formula and Bayes' rule
//
// In the network's frame, x_t = a x with a = 1 / sqrt(1 + sigma^2), this is alg. 2, eps -= sqrt(1 - a^2) grad_{x_t} log p(y | x_t). Their
// ancestral sampler (alg. 1) instead shifts the mean by variance times gradient, to first order the same; `form: mean` leaves the gradient
// in the estimate for it (ddpm).
//
// Clip before it in the form of the mean, as guided-diffusion does: [clip, {type: classifier, form: mean}]. Clip after it in the form of
// the score: the exact gradient falls like 1 / sigma^2 and a learned one does not, so if sigma is in the thousands (cosine) the first
// step would throw x far off.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

enum class Form { score, mean };

class ClassifierDenoiser final : public Denoiser {
 public:
  ClassifierDenoiser(std::shared_ptr<const Denoiser> inner, std::shared_ptr<const NoisyClassifier> classifier, double scale, Form form)
      : inner_(std::move(inner)), classifier_(std::move(classifier)), scale_(scale), form_(form) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (scale_ == 0) return inner_->denoise(x, sigma, condition);
    const Tensor pull = gradient(x, sigma, condition) * scale_;
    Estimate d = inner_->denoise(x, sigma, condition);
    const Tensor shift = pull * (sigma * sigma);
    d.x0 = d.x0 + shift;
    if (d.x0_uncond.defined()) d.x0_uncond = d.x0_uncond + shift;
    if (form_ == Form::mean) d.gradient = d.gradient.defined() ? d.gradient + pull : pull;
    return d;
  }

 private:
  Tensor gradient(const Tensor& x, double sigma, const Condition& condition) const {
    if (!condition.labels.defined()) throw ConfigError("classifier guidance needs the class of every image");
    const at::AutoGradMode enabled(true);
    const Tensor leaf = x.detach().clone().set_requires_grad(true);
    classifier_->log_probability(leaf, sigma, condition.labels).sum().backward();
    return leaf.grad();
  }

  std::shared_ptr<const Denoiser> inner_;
  std::shared_ptr<const NoisyClassifier> classifier_;
  double scale_;
  Form form_;
};

class ClassifierGuidance final : public Guidance {
 public:
  struct Options {
    std::string model;
    double scale = 1;
    Form form = Form::score;
    void declare(Fields& f) {
      f.field(
          "model", model,
          "model.safetensors of a classifier of noisy images; looked for in the folder of the file that names it, then in the current one");
      f.field("scale", scale, "0 = the model alone, 1 = Bayes' rule, more = stronger", at_least(0));
      f.choice("form", form, "score = in the estimate; mean = ddpm shifts its mean by variance times gradient (ADM alg. 1)",
               {{"score", Form::score}, {"mean", Form::mean}});
      f.unused(scale == 0, {"model", "form"}, "scale is 0");
    }
  };
  explicit ClassifierGuidance(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.sets_gradient = o_.form == Form::mean, .place = GuidancePlace::classifier}; }
  void check(const Controls&) const override {
    if (o_.model.empty()) throw ConfigError("model: missing; the model.safetensors of a classifier trained on noisy images");
  }
  std::vector<std::string> classes(const ModelSource& models) const override { return models.classifier(o_.model)->classes(); }

  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    auto classifier = model.models.classifier(o_.model);
    const int64_t classes = int64_t(classifier->classes().size());
    if (model.controls.classes > 0 && model.controls.classes != classes)
      throw ConfigError(
          fmt::format("{} tells {} apart, and the model has {}", o_.model, counted(classes, "class"), model.controls.classes));
    if (!(classifier->shape() == model.shape))
      throw ConfigError(
          fmt::format("{} is for {} images, and the model denoises {}", o_.model, classifier->shape().text(), model.shape.text()));
    return std::make_shared<ClassifierDenoiser>(std::move(inner), std::move(classifier), o_.scale, o_.form);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_classifier(Registry& r) {
  r.add<Guidance, ClassifierGuidance>("classifier", "classifier guidance, by a classifier of noisy images");
}

}  // namespace brume::plugins
