#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/config/errors.h"
#include "brume/conform/conform.h"
#include "brume/conform/exact_denoisers.h"
#include "brume/conform/exact_models.h"
#include "brume/conform/four_threads.h"

namespace brume {
namespace {

const ImageShape shape{3, 4, 4};
constexpr int64_t batch = 5;

/// Estimates that no condition, class or range changes: a small share of x.
class IndifferentDenoiser final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = x * (1e-3 / (1 + sigma));
    d.variance = d.x0 * 0.5;
    return d;
  }
};

class IndifferentClassifier final : public NoisyClassifier {
 public:
  Tensor log_probability(const Tensor& x, double, const Tensor&) const override { return x.flatten(1).sum(1) * 0; }
  const std::vector<std::string>& classes() const override { return names_; }
  ImageShape shape() const override { return brume::shape; }

 private:
  std::vector<std::string> names_{"0", "1", "2"};
};

/// The models that a guidance sees: the one it steers, a weaker one, and a classifier.
class Models final : public ModelSource {
 public:
  Models(std::shared_ptr<const Denoiser> denoiser, std::shared_ptr<const NoisyClassifier> classifier)
      : denoiser_(std::move(denoiser)), classifier_(std::move(classifier)) {}
  /// Returns a model without classes, so that it gives the unconditional estimate.
  OtherModel model(const std::string&) const override { return {denoiser_, cosine_times(), shape, 0, false}; }
  std::shared_ptr<const NoisyClassifier> classifier(const std::string&) const override { return classifier_; }

  std::shared_ptr<const Denoiser> wrap(const Guidance& guidance) const {
    const auto with_taps = [inner = denoiser_](const Taps& taps) -> std::shared_ptr<const Denoiser> {
      if (taps.empty()) return inner;
      return std::make_shared<Unconditional>(inner);
    };
    const TapPoints points{{"block"}, {"block"}, {"block"}, {"block"}};
    return guidance.wrap(denoiser_,
                         {cosine_times(), *this, v_prediction(), {ClassMixture::classes, true, false}, shape, points, with_taps});
  }

 private:
  /// A network that taps have kept from seeing its condition.
  class Unconditional final : public Denoiser {
   public:
    explicit Unconditional(std::shared_ptr<const Denoiser> inner) : inner_(std::move(inner)) {}
    Estimate denoise(const Tensor& x, double sigma, const Condition&) const override { return inner_->denoise(x, sigma, {}); }

   private:
    std::shared_ptr<const Denoiser> inner_;
  };

  std::shared_ptr<const Denoiser> denoiser_;
  std::shared_ptr<const NoisyClassifier> classifier_;
};

const Models& exact() {
  static const Models models(std::make_shared<ClassMixtureDenoiser>(), std::make_shared<ClassMixtureClassifier>(shape));
  return models;
}
const Denoiser& exact_denoiser() {
  static const ClassMixtureDenoiser denoiser;
  return denoiser;
}

Tensor noisy(double sigma, at::ScalarType type = at::kDouble) {
  at::Generator random = at::detail::createCPUGenerator(3);
  const Tensor x = at::randn({batch, shape.channels, shape.height, shape.width}, random, at::TensorOptions().dtype(at::kDouble));
  return (x * std::hypot(ClassMixture::s, sigma)).to(type);
}

/// Returns the classes 0, 1, 2, 0, 1, and of each image another known part; `all`: everything is to be generated.
Condition condition(bool all) {
  Condition c;
  c.classes = c.labels = at::arange(batch, at::kLong) % ClassMixture::classes;
  c.guidance = at::ones({batch}, at::kFloat);
  c.mask = (at::arange(batch * 16, at::kLong).view({batch, 1, 4, 4}) % 3 > 0).to(at::kFloat);
  if (all) c.mask = at::ones_like(c.mask);
  c.known = (at::arange(batch * 48, at::kFloat).view({batch, 3, 4, 4}) * (1.0 / 240)) - 0.5;
  Condition null = c;
  null.classes = at::full_like(c.classes, ClassMixture::classes);
  c.null = std::make_shared<Condition>(null);
  return c;
}

double largest(const Tensor& t) { return t.abs().max().item<double>(); }

/// Returns it at the largest of these scales that it allows; the guidance itself if it has no scale.
std::shared_ptr<const Guidance> steering(const GuidanceAtScale& at_scale) {
  if (at_scale)
    for (const double scale : {3.0, 1.5, 0.6})
      if (auto g = at_scale(scale)) return g;
  return nullptr;
}

void check_direction(std::vector<Finding>& findings, const Guidance& guidance, const GuidanceAtScale& at_scale) {
  if (guidance.traits().place != GuidancePlace::estimate && guidance.traits().place != GuidancePlace::classifier) return;
  const Law law{"towards the condition",
                "Seen from the unconditional estimate, the guided one lies on the side of the conditional one, for every image and sigma",
                "Ho & Salimans 2022, eq. 6; Dhariwal & Nichol 2021, sec. 4"};
  check(findings, law, [&](Finding& f) {
    const auto strong = steering(at_scale);
    const auto denoiser = exact().wrap(strong ? *strong : guidance);
    const Condition c = condition(true);
    double least = INFINITY, at = 0;
    for (const double sigma : {0.3, 1.0, 4.0}) {
      const Tensor x = noisy(sigma), without = exact_denoiser().denoise(x, sigma, *c.null).x0;
      const Tensor with = exact_denoiser().denoise(x, sigma, c).x0 - without, guided = denoiser->denoise(x, sigma, c).x0 - without;
      for (int64_t i = 0; i < batch; ++i) {
        const Tensor a = guided[i].flatten(), b = with[i].flatten();
        if (largest(b) < 1e-6) continue;  // the class is plain to see
        const double share = a.dot(b).item<double>() / b.dot(b).item<double>();
        if (!(share >= least)) least = std::isnan(share) ? -INFINITY : share, at = sigma;
      }
    }
    f.measured = fmt::format("{:.3g} of the difference, at sigma = {:.2g}", least, at), f.wanted = "above 0", f.holds = least > 0;
  });
}

void check_neutral(std::vector<Finding>& findings, const Guidance& guidance, const GuidanceAtScale& at_scale) {
  const Law nothing{"nothing to steer by",
                    "If condition, weaker model and classifier make no difference, x0 is within range and all is to be generated, the "
                    "estimate stays as it is"};
  check(findings, nothing, [&](Finding& f) {
    const auto inner = std::make_shared<IndifferentDenoiser>();
    const auto denoiser = Models(inner, std::make_shared<IndifferentClassifier>()).wrap(guidance);
    double worst = 0, at = 0;
    for (const double sigma : {0.05, 1.0, 20.0}) {
      const Tensor x = noisy(sigma), wanted = inner->denoise(x, sigma, {}).x0;
      const double error = largest(denoiser->denoise(x, sigma, condition(true)).x0 - wanted) / largest(wanted);
      if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error, at = sigma;
    }
    f.measured = fmt::format("changed by {:.1e}, at sigma = {:.2g}", worst, at), f.wanted = "below 1e-9", f.holds = worst < 1e-9;
  });
  if (!at_scale) return;
  check(findings, {"a neutral scale", "At a scale of 1, or of 0, the estimate is that of the model", "Ho & Salimans 2022, eq. 6"},
        [&](Finding& f) {
          double best = INFINITY;
          for (const double scale : {1.0, 0.0})
            if (const auto neutral = at_scale(scale)) {
              const Tensor x = noisy(1), wanted = exact_denoiser().denoise(x, 1, condition(true)).x0;
              const double error = largest(exact().wrap(*neutral)->denoise(x, 1, condition(true)).x0 - wanted);
              if (error < best) best = error, f.measured = fmt::format("changed by {:.1e} at scale {}", error, scale);
            }
          f.wanted = "below 1e-9", f.holds = best < 1e-9;
        });
}

void check_null(std::vector<Finding>& findings, const Guidance& guidance) {
  const bool uses = guidance.traits().uses_null;
  const Law law =
      uses ? Law{"refuses a model without null condition", "A guidance that uses the unconditional estimate refuses a model without one"}
           : Law{"works without null condition", "A guidance that declares no use of the unconditional estimate gives the same without it"};
  check(findings, law, [&](Finding& f) {
    if (uses) {
      guidance.check({ClassMixture::classes, true, false});
      f.wanted = "a ConfigError", f.measured = "accepted", f.holds = false;
      try {
        guidance.check({ClassMixture::classes, false, false});
      } catch (const ConfigError& e) {
        f.holds = true, f.measured = "refused";
      }
      return;
    }
    Condition alone = condition(false);
    alone.null = nullptr;
    const auto denoiser = exact().wrap(guidance);
    f.holds = at::equal(denoiser->denoise(noisy(1), 1, condition(false)).x0, denoiser->denoise(noisy(1), 1, alone).x0);
    f.measured = f.holds ? "equal" : "different", f.wanted = "equal";
  });
  if (!guidance.traits().needs_direction) return;
  const Law kept{"keeps the direction",
                 "A guidance that needs the direction of the noise fills x0_uncond, with the unconditional estimate if it uses that",
                 "Chung et al. 2024, alg. 2"};
  check(findings, kept, [&](Finding& f) {
    const Condition c = condition(true);
    const Estimate d = exact().wrap(guidance)->denoise(noisy(1), 1, c);
    f.wanted = uses ? "within 1e-9 of the unconditional estimate" : "there";
    if (!d.x0_uncond.defined()) {
      f.measured = "x0_uncond is undefined", f.holds = false;
    } else if (const double error = largest(d.x0_uncond - exact_denoiser().denoise(noisy(1), 1, *c.null).x0); uses) {
      f.measured = fmt::format("off by {:.1e}", error), f.holds = error < 1e-9;
    } else {
      f.measured = "there";
    }
  });
}

void check_images(std::vector<Finding>& findings, const Guidance& guidance) {
  check(findings, {"image i alone and in a batch of 5", "An image and its row of the condition have the same bits whatever their batch"},
        [&](Finding& f) {
          const auto denoiser = exact().wrap(guidance);
          int64_t same = 0;
          for (const double sigma : {0.5, 3.0}) {
            const Tensor together = denoiser->denoise(noisy(sigma), sigma, condition(false)).x0;
            for (int64_t i = 0; i < batch; ++i)
              same += at::equal(denoiser->denoise(noisy(sigma).narrow(0, i, 1), sigma, condition(false).slice(i, 1)).x0,
                                together.narrow(0, i, 1));
          }
          f.measured = fmt::format("{} of 10 equal", same), f.wanted = "10 of 10, bit for bit", f.holds = same == 10;
        });
  check(findings, {"shape and dtype", "Every part of the estimate has the shape and dtype of x, and is finite from sigma = 0.01 to 80"},
        [&](Finding& f) {
          const auto denoiser = exact().wrap(guidance);
          f.measured = f.wanted = "kept, finite";
          for (const at::ScalarType type : {at::kFloat, at::kDouble})
            for (const double sigma : {0.01, 1.0, 80.0}) {
              const Estimate d = denoiser->denoise(noisy(sigma, type), sigma, condition(false));
              const auto fits = [&](const Tensor& t) {
                return t.sizes() == noisy(1).sizes() && t.scalar_type() == type && at::isfinite(t).all().item<bool>();
              };
              const auto absent_or_fits = [&](const Tensor& t) { return !t.defined() || fits(t); };
              const std::pair<const char*, bool> parts[] = {{"x0", d.x0.defined() && fits(d.x0)},
                                                            {"variance", d.variance.defined() && fits(d.variance)},
                                                            {"x0_uncond", absent_or_fits(d.x0_uncond)},
                                                            {"gradient", absent_or_fits(d.gradient)}};
              for (const auto& [name, fine] : parts)
                if (f.holds && !fine)
                  f.holds = false,
                  f.measured = fmt::format("{} is lost, at sigma = {} in {}", name, sigma, type == at::kFloat ? "float32" : "float64");
            }
        });
}

void check_value(std::vector<Finding>& findings, const Guidance& guidance) {
  check(findings, {"its inputs", "A guidance does not write to x, to the condition or to the null condition"}, [&](Finding& f) {
    const Tensor x = noisy(1);
    const Condition c = condition(false), before = condition(false);
    exact().wrap(guidance)->denoise(x, 1, c);
    f.measured = f.wanted = "unchanged";
    const auto expect = [&](const char* name, const Tensor& now, const Tensor& then) {
      if (!at::equal(now, then)) f.holds = false, f.measured = fmt::format("{} is changed", name);
    };
    expect("x", x, noisy(1));
    for (const auto& [part, name] : {std::pair(&Condition::classes, "classes"),
                                     {&Condition::labels, "labels"},
                                     {&Condition::mask, "mask"},
                                     {&Condition::known, "known"}}) {
      expect(name, c.*part, before.*part);
      expect(name, (*c.null).*part, (*before.null).*part);
    }
  });
  std::shared_ptr<const Denoiser> denoiser;  // made by the first call, which is alone, and shared by the threads
  check_four_threads(findings, "A guided denoiser keeps no state between calls", [&](size_t i) {
    if (!denoiser) denoiser = exact().wrap(guidance);
    return denoiser->denoise(noisy(double(i + 1)), double(i + 1), condition(false)).x0;
  });
}

}  // namespace

std::vector<Finding> conform(const Guidance& guidance, const GuidanceAtScale& at_scale) {
  const at::NoGradGuard no_grad;
  std::vector<Finding> findings;
  check_direction(findings, guidance, at_scale);
  check_neutral(findings, guidance, at_scale);
  check_null(findings, guidance);
  check_images(findings, guidance);
  check_value(findings, guidance);
  return findings;
}

}  // namespace brume
