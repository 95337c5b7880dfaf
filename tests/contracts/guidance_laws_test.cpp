// Laws of single guidances, on a mixture of Gaussians whose every quantity is known in closed form, in float64.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/std.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <numbers>

#include "brume/core/guidance.h"
#include "brume/core/sampler.h"
#include "support/models.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr auto f64 = at::kDouble;
constexpr double spread = 0.5;
const std::vector<double> centres{-1.2, 0.3, 1.5}, weights{0.2, 0.5, 0.3};
constexpr int64_t null_class = 3;

/// log p(x, y = k) of the noisy data, but for a constant, [B, 3].
Tensor log_joint(const Tensor& x, double sigma) {
  std::vector<Tensor> all;
  for (size_t k = 0; k < 3; ++k)
    all.push_back(std::log(weights[k]) - (x - centres[k]).pow(2).flatten(1).sum(1) / (2 * (spread * spread + sigma * sigma)));
  return at::stack(all, 1);
}

/// The exact denoiser of data that is N(centre, spread^2) in every pixel, with the centre of its class; of all classes mixed for the
/// null class. Counts its calls and remembers the largest batch.
class MixtureDenoiser final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    batches.push_back(x.size(0));
    const Tensor posterior = log_joint(x, sigma).softmax(1);
    const double data = spread * spread, noise = sigma * sigma;
    Estimate d;
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < x.size(0); ++i) {
      const int64_t y = condition.classes.defined() ? condition.classes[i].item<int64_t>() : null_class;
      const auto of = [&](size_t k) { return (x[i] * data + noise * centres[k]) / (data + noise); };
      Tensor row = y < null_class ? of(size_t(y)) : at::zeros_like(x[i]);
      if (y == null_class)
        for (size_t k = 0; k < 3; ++k) row = row + of(k) * posterior[i][int64_t(k)];
      rows.push_back(row);
    }
    d.x0 = at::stack(rows);
    return d;
  }
  mutable std::vector<int64_t> batches;
};

/// Bayes' own classifier of that data.
class MixtureClassifier final : public NoisyClassifier {
 public:
  Tensor log_probability(const Tensor& x, double sigma, const Tensor& classes) const override {
    const Tensor joint = log_joint(x, sigma);
    return joint.gather(1, classes.unsqueeze(1)).squeeze(1) - joint.logsumexp(at::IntArrayRef({1}));
  }
  const std::vector<std::string>& classes() const override { return names_; }
  ImageShape shape() const override { return {}; }

 private:
  std::vector<std::string> names_{"a", "b", "c"};
};

class GuidanceLaws : public testing::Test {
 protected:
  GuidanceLaws() {
    condition_.classes = condition_.labels = at::arange(6, at::kLong) % 3;
    Condition null;
    null.classes = at::full_like(condition_.classes, null_class);
    null.labels = condition_.labels;
    condition_.null = std::make_shared<Condition>(null);
  }
  Tensor noisy(double sigma, uint64_t seed = 4) const {
    at::Generator random = at::detail::createCPUGenerator(seed);
    return at::randn({6, 1, 2, 3}, random, at::TensorOptions().dtype(f64)) * std::sqrt(1 + sigma * sigma);
  }
  std::shared_ptr<const Denoiser> wrapped(const std::string& yaml, std::shared_ptr<const Denoiser> inner = nullptr) const {
    return make<Guidance>(yaml)->wrap(inner ? inner : exact_, {schedule_, models_, make<Parameterization>("v"), {3, true}});
  }
  Tensor x0(const std::string& yaml, const Tensor& x, double sigma, const Condition& c) const {
    return wrapped(yaml)->denoise(x, sigma, c).x0;
  }
  static double largest(const Tensor& difference) { return difference.abs().max().item<double>(); }
  Tensor sampled(const std::string& sampler, const Denoiser& denoiser, const Tensor& x, const std::vector<double>& sigmas,
                 const Condition& condition, uint64_t seed = 1) const {
    const auto noise = per_image_noise(seed, 0);
    brume::Run run{condition, *noise, {}, schedule_.get()};
    return make<Sampler>(sampler)->sample(denoiser, x, sigmas, run);
  }

  Condition condition_;
  std::shared_ptr<const NoiseSchedule> schedule_ = make<NoiseSchedule>("cosine");
  std::shared_ptr<MixtureDenoiser> exact_ = std::make_shared<MixtureDenoiser>();
  GivenModels models_{std::make_shared<MixtureClassifier>(), {exact_, schedule_, {}, 3, true}};
  std::vector<double> sigmas_{20, 8, 3, 1.2, 0.5, 0.2, 0.05, 0};
};

TEST_F(GuidanceLaws, AnExactClassifierMakesTheUnconditionalModelConditional) {
  for (const double sigma : {0.05, 0.4, 1.0, 5.0, 80.0}) {
    const Tensor x = noisy(sigma), bayes = x0("{type: classifier, model: c}", x, sigma, *condition_.null);
    EXPECT_LT(largest(bayes - exact_->denoise(x, sigma, condition_).x0), 1e-9) << sigma;
  }
}

TEST_F(GuidanceLaws, CfgIsClassifierGuidanceByTheImplicitClassifier) {
  for (const double sigma : {0.4, 2.0}) {
    const Tensor x = noisy(sigma);
    const Tensor implicit = x0("{type: cfg, scale: 2.5}", x, sigma, condition_);
    EXPECT_LT(largest(implicit - x0("{type: classifier, model: c, scale: 2.5}", x, sigma, *condition_.null)), 1e-9) << sigma;
  }
}

// guidance of ADM, alg. 2 (condition_score), written in the network's frame: eps <- eps - sqrt(1 - a^2) grad log p(y | x_t).
TEST_F(GuidanceLaws, TheScoreFormIsThatOfAdm) {
  const double sigma = 1.7, a = schedule_->signal(sigma);
  const Tensor x = noisy(sigma);
  Tensor net = (x * a).set_requires_grad(true);
  MixtureClassifier().log_probability(net / a, sigma, condition_.labels).sum().backward();
  const Tensor eps = (x - exact_->denoise(x, sigma, *condition_.null).x0) / sigma - std::sqrt(1 - a * a) * 3 * net.grad();
  const Tensor wanted = (net.detach() - std::sqrt(1 - a * a) * eps) / a;
  EXPECT_LT(largest(x0("{type: classifier, model: c, scale: 3}", x, sigma, *condition_.null) - wanted), 1e-12);
}

TEST_F(GuidanceLaws, ClassifierGuidanceNeedsClasses) {
  EXPECT_EQ(error_of([&] { x0("{type: classifier, model: c}", noisy(1), 1, Condition{}); }),
            "classifier guidance needs the class of every image");
  EXPECT_EQ(error_of([&] { make<Guidance>("classifier")->check({}); }),
            "model: missing; the model.safetensors of a classifier trained on noisy images");
  EXPECT_EQ(error_of([&] {
              make<Guidance>("{type: classifier, model: c}")->wrap(exact_, {schedule_, models_, nullptr, {4, false}});
            }),
            "c tells 3 classes apart, and the model has 4");
  EXPECT_EQ(error_of([&] {
              make<Guidance>("{type: classifier, model: c}")->wrap(exact_, {schedule_, models_, nullptr, {}, {1, 8, 8}});
            }),
            "c is for 3x0x0 images, and the model denoises 1x8x8");
}

TEST_F(GuidanceLaws, GuidanceNeedsAnUnconditionalEstimate) {
  for (const std::string name : {"cfg", "cfg_plus_plus"}) {
    const auto g = make<Guidance>("{type: " + name + ", scale: 0.5}");
    EXPECT_EQ(error_of([&] { g->check({3, true}); }), "no error");
    EXPECT_EQ(error_of([&] {
                g->check({3, false});
              }),
              name + " needs an unconditional estimate, and this model was trained without one (conditioner dropout: 0)");
    EXPECT_EQ(error_of([&] {
                g->check({0, false});
              }),
              name + " needs an unconditional estimate, and this model has no condition to leave out (conditioner: none)");
  }
  EXPECT_EQ(error_of([&] { make<Guidance>("cfg")->check({0, false}); }), "no error");
}

// The mean form shifts ddpm's mean by the variance; with many steps it is the score form.
TEST_F(GuidanceLaws, BothFormsOfClassifierGuidanceConverge) {
  const auto gap = [&](int64_t steps) {
    std::vector<double> sigmas;
    for (int64_t i = 0; i <= steps; ++i) sigmas.push_back(10 * std::pow(0.02, double(i) / double(steps)));
    const Tensor x = noisy(10);
    const auto end = [&](const char* form) {
      const auto d = wrapped(std::string("{type: classifier, model: c, form: ") + form + "}");
      return sampled("ddpm", *d, x, sigmas, *condition_.null);
    };
    return largest(end("score") - end("mean"));
  };
  EXPECT_GT(gap(10), 1e-3);
  EXPECT_LT(gap(1000), 0.1 * gap(10));
  const Tensor x = noisy(1);
  const Estimate d = wrapped("{type: classifier, model: c, form: mean, scale: 2}")->denoise(x, 1.5, *condition_.null);
  EXPECT_LT(largest(d.x0 - 1.5 * 1.5 * d.gradient - exact_->denoise(x, 1.5, *condition_.null).x0), 1e-12);
}

TEST_F(GuidanceLaws, CfgIsOneCallOutsideItsInterval) {
  const auto d = wrapped("{type: cfg, scale: 3, sigma_lo: 0.5, sigma_hi: 4}");
  const auto batch_at = [&](double sigma) {
    exact_->batches.clear();
    const Tensor x = noisy(sigma), got = d->denoise(x, sigma, condition_).x0;
    EXPECT_EQ(exact_->batches.size(), 1u);
    const int64_t batch = exact_->batches.at(0);
    const Tensor plain = exact_->denoise(x, sigma, condition_).x0;
    EXPECT_EQ(at::equal(got, plain), batch == 6) << sigma;
    return batch;
  };
  EXPECT_EQ(batch_at(0.4), 6);
  EXPECT_EQ(batch_at(0.5), 6);
  EXPECT_EQ(batch_at(0.6), 12);
  EXPECT_EQ(batch_at(4), 12);
  EXPECT_EQ(batch_at(4.1), 6);
  EXPECT_EQ(error_of([&] { make<Guidance>("{type: cfg, sigma_lo: 2, sigma_hi: 1}"); }),
            "test.yaml:1:36: guidance: sigma_hi: must be more than sigma_lo");
}

TEST_F(GuidanceLaws, TheScheduleOfCfgKeepsItsMean) {
  const Tensor x = noisy(1);
  for (const std::string course : {"constant", "linear", "cosine"}) {
    const auto d = wrapped("{type: cfg, scale: 3, schedule: " + course + "}");
    double sum = 0, last = 1e9;
    const int64_t times = 1000;
    for (int64_t t = 0; t < times; ++t) {
      const double sigma = schedule_->sigma(double(t));
      const Tensor with = exact_->denoise(x, sigma, condition_).x0, without = exact_->denoise(x, sigma, *condition_.null).x0;
      const Tensor difference = (with - without).flatten(), got = (d->denoise(x, sigma, condition_).x0 - without).flatten();
      if (largest(difference) < 1e-6) continue;  // nothing to measure by
      const double scale = got.dot(difference).item<double>() / difference.dot(difference).item<double>();
      EXPECT_LE(scale, last + 1e-6);
      last = scale;
      const double u = double(t) / double(times - 1);
      const double f = course == "linear" ? 2 * (1 - u) : course == "cosine" ? 1 + std::cos(std::numbers::pi * u) : 1;
      EXPECT_NEAR(scale, 1 + 2 * f, 1e-6) << course << t;
      sum += 1 + 2 * f;
    }
    EXPECT_NEAR(sum / double(times), 3, 0.02) << course;  // if all times could be measured
  }
}

/// rescale_noise_cfg of diffusers (Lin et al. 2024, sec. 3.4), on the outputs of the network.
Tensor rescale_noise_cfg(const Tensor& guided, const Tensor& text, double phi) {
  const auto spread_of = [](const Tensor& t) { return t.flatten(1).std(at::OptionalIntArrayRef({1}), true).view({-1, 1, 1, 1}); };
  return guided * (spread_of(text) / spread_of(guided)) * phi + guided * (1 - phi);
}

TEST_F(GuidanceLaws, CfgRescaleIsDiffusersOnTheOutputOfTheNetwork) {
  for (const std::string name : {"eps", "v", "x0"})
    for (const double sigma : {0.3, 2.0, 30.0}) {
      const auto q = make<Parameterization>(name);
      const Tensor x = noisy(sigma);
      const auto output = [&](const Tensor& d) { return (d - x * q->c_skip(sigma)) / q->c_out(sigma); };
      const Tensor text = output(exact_->denoise(x, sigma, condition_).x0), null = output(exact_->denoise(x, sigma, *condition_.null).x0);
      const Tensor wanted = rescale_noise_cfg(null + 4 * (text - null), text, 0.7);
      const auto d = make<Guidance>("{type: cfg, scale: 4, rescale: 0.7}")->wrap(exact_, {schedule_, models_, q, {3, true}});
      EXPECT_LT(largest(output(d->denoise(x, sigma, condition_).x0) - wanted), 1e-9) << name << sigma;
    }
}

// CFG++, alg. 2: x' = sqrt(a') x0_guided + sqrt(1 - a') eps_uncond, in the papers' frame.
TEST_F(GuidanceLaws, CfgPlusPlusIsItsAlgorithm) {
  const double from = 2, to = 0.7, lambda = 0.4;
  const Tensor x = noisy(from);
  const Tensor with = exact_->denoise(x, from, condition_).x0, without = exact_->denoise(x, from, *condition_.null).x0;
  const Tensor guided = without + lambda * (with - without), eps = (x - without) / from;
  const Tensor got = sampled("ddim", *wrapped("{type: cfg_plus_plus, scale: 0.4}"), x, {from, to}, condition_);
  EXPECT_LT(largest(got - (guided + to * eps)), 1e-12);
  const Estimate none = wrapped("{type: cfg_plus_plus, scale: 0}")->denoise(x, from, condition_);
  EXPECT_TRUE(at::equal(none.x0, without));
  EXPECT_TRUE(at::equal(none.x0_uncond, without));
}

TEST_F(GuidanceLaws, AutoguidanceByItselfIsTheIdentity) {
  const Tensor x = noisy(2), plain = exact_->denoise(x, 2, condition_).x0;
  EXPECT_TRUE(at::equal(x0("{type: autoguidance, model: m, scale: 4}", x, 2, condition_), plain));
  // by an unconditional model it is classifier-free guidance
  const GivenModels unconditional(nullptr, {exact_, schedule_, {}, 0, false});
  const auto d = make<Guidance>("{type: autoguidance, model: m, scale: 3}")->wrap(exact_, {schedule_, unconditional, nullptr, {3, true}});
  EXPECT_LT(largest(d->denoise(x, 2, condition_).x0 - x0("{type: cfg, scale: 3}", x, 2, condition_)), 1e-12);
}

TEST_F(GuidanceLaws, AWeakModelMustFit) {
  const auto wrap = [&](const OtherModel& weak, const Controls& controls) {
    const GivenModels models(nullptr, weak);
    return error_of([&] {
      make<Guidance>("{type: autoguidance, model: m}")->wrap(exact_, {schedule_, models, nullptr, controls, {1, 8, 8}});
    });
  };
  EXPECT_EQ(wrap({exact_, schedule_, {1, 8, 8}, 3, true}, {3, true}), "no error");
  EXPECT_EQ(wrap({exact_, schedule_, {3, 8, 8}, 3, true}, {3, true}), "m denoises 3x8x8 images, and the model 1x8x8");
  EXPECT_EQ(wrap({exact_, schedule_, {1, 8, 8}, 4, true}, {3, true}), "m has 4 classes, and the model 3");
  EXPECT_EQ(wrap({exact_, schedule_, {1, 8, 8}, 3, false}, {3, true}),
            "m was trained without an unconditional estimate, and the model with one");
  EXPECT_EQ(error_of([&] { make<Guidance>("autoguidance")->check({}); }), "model: missing; the model.safetensors of a weaker model");
}

class Inpainting : public GuidanceLaws {
 protected:
  Inpainting() {
    at::Generator random = at::detail::createCPUGenerator(8);
    known_ = at::rand({6, 1, 2, 3}, random, at::TensorOptions().dtype(f64)) * 2 - 1;
    mask_ = (at::rand({6, 1, 2, 3}, random, at::TensorOptions().dtype(f64)) > 0.5).to(f64);
    set(mask_);
    noise_ = noisy(0, 9);
    start_ = (known_ + noise_ * sigmas_.front()) * (1 - mask_) + noise_ * std::sqrt(1 + sigmas_.front() * sigmas_.front()) * mask_;
  }
  void set(const Tensor& mask) {
    Condition null = *condition_.null;
    condition_.known = null.known = known_;
    condition_.mask = null.mask = mask;
    condition_.null = std::make_shared<Condition>(null);
  }
  Tensor known_, mask_, noise_, start_;
};

TEST_F(Inpainting, TheKnownRegionIsExactAtTheEnd) {
  for (const char* sampler : {"ddim", "{type: ddim, eta: 1}", "ddpm", "{type: repaint, jump_length: 2, resamples: 3}",
                              "{type: repaint, sampler: ddim, jump_length: 1, resamples: 2}"}) {
    const Tensor end = sampled(sampler, *wrapped("inpaint"), start_, sigmas_, condition_);
    EXPECT_TRUE(at::equal(end * (1 - mask_), known_ * (1 - mask_))) << sampler;
    EXPECT_GT(largest((end - known_) * mask_), 0.1) << sampler;
  }
}

TEST_F(Inpainting, IsBlendingWithTheNoisedImageAfterEveryStep) {
  Tensor x = start_;
  for (size_t i = 0; i + 1 < sigmas_.size(); ++i) {
    x = sampled("ddim", *exact_, x, {sigmas_[i], sigmas_[i + 1]}, condition_);
    x = x * mask_ + (known_ + noise_ * sigmas_[i + 1]) * (1 - mask_);
  }
  EXPECT_LT(largest(sampled("ddim", *wrapped("inpaint"), start_, sigmas_, condition_) - x), 1e-12);
}

TEST_F(Inpainting, ASoftMaskBlends) {
  const Tensor x = noisy(1), made = exact_->denoise(x, 1, condition_).x0;
  set(at::full_like(mask_, 0.25));
  EXPECT_LT(largest(x0("inpaint", x, 1, condition_) - (made * 0.25 + known_ * 0.75)), 1e-14);
}

TEST_F(Inpainting, NeedsAnImage) {
  set(Tensor());
  EXPECT_EQ(error_of([&] { x0("inpaint", noisy(1), 1, condition_); }), "inpaint needs an image, and a mask of the part to generate");
}

TEST_F(Inpainting, GoesWithTheOthers) {
  auto d = wrapped("{type: classifier, model: c, form: mean}", wrapped("{type: cfg, scale: 2}"));
  d = wrapped("inpaint", wrapped("{type: clip, keep_direction: true}", d));
  for (const char* sampler : {"ddim", "ddpm"})
    EXPECT_LT(largest((sampled(sampler, *d, start_, sigmas_, condition_) - known_) * (1 - mask_)), 1e-12) << sampler;
}

/// Where a run of RePaint calls the denoiser.
std::vector<double> visited(const std::string& yaml, int64_t steps) {
  class Watcher final : public Denoiser {
   public:
    Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
      seen.push_back(sigma);
      return {x * 0, {}, {}};
    }
    mutable std::vector<double> seen;
  } watcher;
  std::vector<double> sigmas;
  for (int64_t i = steps; i >= 0; --i) sigmas.push_back(double(i));
  const auto noise = per_image_noise(0, 0);
  const Condition none;
  int64_t reports = 0;
  Run run{none, *noise, [&](const Step& step) {
            EXPECT_EQ(step.index, reports++);
            return true;
          }};
  make<Sampler>(yaml)->sample(watcher, at::ones({1, 1, 1, 1}), sigmas, run);
  EXPECT_EQ(reports, int64_t(watcher.seen.size()));
  return watcher.seen;
}

// get_schedule_jump of the authors' code: T = 6, jump_length 2, jump_n_sample 2 gives t = 5 4 3 2 [3 4] 3 2 1 0 [1 2] 1 0 -1; a call is
// made at every t that is left downwards, at level t + 1.
TEST(Repaint, WalksTheJumpsOfItsAuthors) {
  EXPECT_EQ(visited("{type: repaint, jump_length: 2, resamples: 2}", 6), (std::vector<double>{6, 5, 4, 5, 4, 3, 2, 3, 2, 1}));
  EXPECT_EQ(visited("{type: repaint, jump_length: 1, resamples: 3}", 3), (std::vector<double>{3, 3, 3, 2, 2, 2, 1}));
  EXPECT_EQ(visited("{type: repaint, jump_length: 2, resamples: 1}", 3), (std::vector<double>{3, 2, 1}));
  EXPECT_EQ(visited("{type: repaint, jump_length: 10, resamples: 5}", 3), (std::vector<double>{3, 2, 1}));
}

}  // namespace
}  // namespace brume::test
