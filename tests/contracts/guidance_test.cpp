// Every guidance: the identity at neutral settings, bit for bit, and the laws of its kind (conform/guidance.cpp).
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <map>

#include "brume/core/guidance.h"
#include "support/laws.h"
#include "support/models.h"
#include "support/registry.h"

namespace brume::test {
namespace {

/// x0 = sin(x + class / 3), the null class being one more, with a learned variance.
class ClassDenoiser final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (condition.classes.size(0) != x.size(0)) throw std::logic_error("classes and images disagree");
    Estimate d;
    d.x0 = (x + condition.classes.to(x.scalar_type()).view({-1, 1, 1, 1}) / 3).sin() * (1 / (1 + 0.1 * sigma));
    d.variance = d.x0 * 0.5;
    return d;
  }
};

/// log p(y | x) of five classes, each near its own grey.
class GreyClassifier final : public NoisyClassifier {
 public:
  Tensor log_probability(const Tensor& x, double sigma, const Tensor& classes) const override {
    const Tensor grey = x.flatten(1).mean(1, true) / (1 + sigma), logits = (grey - at::arange(5, x.options()) / 5).pow(2) * -3;
    return logits.log_softmax(1).gather(1, classes.unsqueeze(1)).squeeze(1);
  }
  const std::vector<std::string>& classes() const override { return names_; }
  ImageShape shape() const override { return {}; }

 private:
  std::vector<std::string> names_{"0", "1", "2", "3", "4"};
};

/// Half of what ClassDenoiser says.
class WeakDenoiser final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    return {ClassDenoiser().denoise(x, sigma, condition).x0 * 0.5, {}, {}};
  }
};

/// Settings at which a guidance does nothing to estimates within [-1, 1].
const std::map<std::string, std::string> neutral = {
    {"apg", "{type: apg, scale: 1}"},
    {"autoguidance", "{type: autoguidance, scale: 1}"},
    {"cads", "{type: cads, noise_scale: 0}"},
    {"cfg", "{type: cfg, scale: 1}"},
    {"cfg_norm", "{type: cfg_norm, scale: 1}"},
    {"cfg_plus_plus", ""},  // its direction is the unconditional one at any scale
    {"cfg_zero_star", "{type: cfg_zero_star, scale: 1}"},
    {"classifier", "{type: classifier, scale: 0}"},
    {"clip", "{type: clip, range: 1.0e+9}"},
    {"distilled", "{type: distilled, scale: 1}"},
    {"dynamic_threshold", "{type: dynamic_threshold, quantile: 1, maximum: 1000}"},
    {"easycache", "{type: easycache, threshold: 0}"},
    {"fdg", "{type: fdg, scales: [1, 1]}"},
    {"fresca", "{type: fresca, scale: 1, high: 1}"},
    {"inpaint", "inpaint"},  // if all is to be generated
    {"magnitude_aware", "{type: magnitude_aware, scale: 1}"},
    {"perp_neg", "{type: perp_neg, scale: 1}"},
    {"mimic", "{type: mimic, scale: 1}"},
    {"pag", "{type: pag, blocks: [block], scale: 0}"},
    {"sag", "{type: sag, blocks: [block], scale: 0}"},
    {"seg", "{type: seg, blocks: [block], scale: 0}"},
    {"skip_layer", "{type: skip_layer, blocks: [block], scale: 0}"},
    {"slg", "{type: slg, blocks: [block], scale: 0}"},
    {"taylor", "{type: taylor, threshold: 0}"},
    {"tcfg", "{type: tcfg, scale: 1}"},
};

/// The same for any guidance: a library's has a scale, at which 1 does nothing, or "".
std::string neutral_settings(const std::string& name) {
  if (const auto known = neutral.find(name); known != neutral.end()) return known->second;
  EXPECT_NE(builtins().entry("guidance", name).origin, "built-in") << "add the neutral settings of '" << name << "' to this test";
  const std::string at_one = "{type: " + name + ", scale: 1}";
  return error_of([&] { make<Guidance>(at_one); }) == "no error" ? at_one : "";
}

class GuidanceContract : public testing::TestWithParam<Specimen> {
 protected:
  static Tensor noisy(at::ScalarType type = at::kFloat) {
    at::Generator random = at::detail::createCPUGenerator(3);
    return (at::randn({5, 3, 4, 4}, random, at::TensorOptions().dtype(at::kDouble)) * 4).to(type);
  }
  static Condition classes() {
    Condition c;
    c.classes = c.labels = at::arange(5, at::kLong);
    c.guidance = at::ones({5});
    c.known = at::full({5, 3, 4, 4}, 0.25);
    c.mask = (at::arange(5 * 16).view({5, 1, 4, 4}) % 3 > 0).to(at::kFloat);
    Condition null = c;
    null.classes = at::full({5}, 5, at::kLong);
    c.null = std::make_shared<Condition>(null);
    return c;
  }
  static Condition all_to_be_made() {
    Condition c = classes(), null = *c.null;
    c.mask = null.mask = at::ones_like(c.mask);
    c.null = std::make_shared<Condition>(null);
    return c;
  }
  std::shared_ptr<const Denoiser> inner_ = std::make_shared<ClassDenoiser>();
  std::shared_ptr<const Denoiser> wrapped(const std::string& yaml) const {
    const auto schedule = make<NoiseSchedule>("cosine");
    const GivenModels models(std::make_shared<GreyClassifier>(), {std::make_shared<WeakDenoiser>(), schedule, {}, 5, true});
    const auto tapped = [this](const Taps& taps) { return taps.empty() ? inner_ : std::make_shared<WeakDenoiser>(); };
    const GuidedModel model{.schedule = schedule,
                            .models = models,
                            .parameterization = make<Parameterization>("v"),
                            .controls = {5, true},
                            .tap_points = {.blocks = {"block"}, .skippable = {"block"}, .attention = {"block"}},
                            .denoiser = tapped};
    return make<Guidance>(yaml)->wrap(inner_, model);
  }
};

TEST_P(GuidanceContract, NeutralSettingsAreTheIdentity) {
  const std::string settings = neutral_settings(GetParam().name);
  if (settings.empty()) GTEST_SKIP() << "it has no scale";
  const Estimate plain = inner_->denoise(noisy(), 2, all_to_be_made()), guided = wrapped(settings)->denoise(noisy(), 2, all_to_be_made());
  EXPECT_TRUE(at::equal(guided.x0, plain.x0));
  EXPECT_TRUE(at::equal(guided.variance, plain.variance));
  if (guided.x0_uncond.defined()) {
    EXPECT_TRUE(at::equal(guided.x0_uncond, plain.x0));
  }
}

TEST_P(GuidanceContract, KeepsItsLaws) {
  const auto at_scale = [&](double scale) -> std::shared_ptr<const Guidance> {
    try {
      return create<Guidance>(builtins(), with(GetParam().yaml, fmt::format("scale: {}", scale)));
    } catch (const ConfigError&) {
      return nullptr;
    }
  };
  expect_to_hold(conform(*make<Guidance>(GetParam().yaml), at_scale(1) ? GuidanceAtScale(at_scale) : nullptr));
}

INSTANTIATE_TEST_SUITE_P(Registry, GuidanceContract,
                         testing::ValuesIn(specimens(
                             "guidance", {"{type: cfg, scale: 0}", "{type: cfg, scale: 3}",
                                          "{type: cfg, scale: 3, schedule: cosine, rescale: 0.7}", "{type: cfg, scale: 3, sigma_lo: 0.7}",
                                          "{type: cfg, scale: 3, channels: 1}", "{type: classifier, scale: 4, form: mean}",
                                          "{type: skip_layer, blocks: [block], scale: 2}", "{type: clip, range: 0.2, keep_direction: true}",
                                          "{type: dynamic_threshold, quantile: 0.9, keep_direction: true}"})),
                         readable);

class Guidances : public GuidanceContract {};

TEST_F(Guidances, CfgMovesAlongTheDifference) {
  const Tensor x = noisy(at::kDouble);
  const Tensor with = inner_->denoise(x, 1, classes()).x0, without = inner_->denoise(x, 1, *classes().null).x0;
  EXPECT_TRUE(at::allclose(wrapped("{type: cfg, scale: 3}")->denoise(x, 1, classes()).x0, without + 3 * (with - without), 1e-12, 1e-12));
  EXPECT_TRUE(at::equal(wrapped("{type: cfg, scale: 0}")->denoise(x, 1, classes()).x0, without));
  EXPECT_EQ(error_of([&] { wrapped("{type: cfg, scale: 3}")->denoise(x, 1, {.classes = classes().classes}); }),
            "cfg needs an unconditional estimate, and this model was trained without one (conditioner dropout: 0)");
}

TEST_F(Guidances, CfgOfTheFirstChannelsLeavesTheOthers) {
  const Tensor x = noisy(at::kDouble), with = inner_->denoise(x, 1, classes()).x0;
  const Tensor all = wrapped("{type: cfg, scale: 3}")->denoise(x, 1, classes()).x0;
  const Tensor two = wrapped("{type: cfg, scale: 3, channels: 2}")->denoise(x, 1, classes()).x0;
  EXPECT_TRUE(at::equal(two.narrow(1, 0, 2), all.narrow(1, 0, 2)));
  EXPECT_TRUE(at::equal(two.narrow(1, 2, 1), with.narrow(1, 2, 1)));
  EXPECT_FALSE(at::equal(two, all));
  const GuidedModel model{.schedule = make<NoiseSchedule>("cosine"), .models = no_models(), .shape = {3, 4, 4}};
  EXPECT_EQ(error_of([&] { make<Guidance>("{type: cfg, scale: 3, channels: 4}")->wrap(inner_, model); }),
            "channels: 4 are to be guided, and x has 3");
}

// Where the guided output and the conditional one have no spread, there is nothing to scale.
TEST_F(Guidances, CfgRescalesTwoZeroSpreadsByOne) {
  const Tensor x = at::ones({5, 1, 4, 4}, at::kDouble), d = wrapped("{type: cfg, scale: 3, rescale: 1}")->denoise(x, 1, classes()).x0;
  EXPECT_TRUE(at::equal(d, wrapped("{type: cfg, scale: 3}")->denoise(x, 1, classes()).x0)) << d;
}

TEST_F(Guidances, SkipLayerMovesAwayFromTheModelWithoutTheBlock) {
  const Tensor x = noisy(at::kDouble), d = inner_->denoise(x, 1, classes()).x0;
  const std::string skip = "{type: skip_layer, blocks: [block], scale: 2, sigma_lo: 0.5, sigma_hi: 3}";
  EXPECT_TRUE(at::equal(wrapped(skip)->denoise(x, 1, classes()).x0, d + (d - d * 0.5) * 2));
  for (const double outside : {0.5, 3.5})
    EXPECT_TRUE(at::equal(wrapped(skip)->denoise(x, outside, classes()).x0, inner_->denoise(x, outside, classes()).x0)) << outside;
  EXPECT_EQ(error_of([&] { wrapped("{type: skip_layer, blocks: [blok]}"); }), "blocks: 'blok' cannot be skipped; did you mean 'block'?");
  EXPECT_EQ(error_of([&] { make<Guidance>("skip_layer")->check({}); }),
            "blocks: missing; the names of the blocks to skip, like [middle_block.1]");
  const GuidedModel bare{make<NoiseSchedule>("cosine"), no_models()};
  EXPECT_EQ(error_of([&] { make<Guidance>("{type: skip_layer, blocks: [block]}")->wrap(inner_, bare); }),
            "this model's network has no blocks that can be skipped");
}

TEST_F(Guidances, ClipKeepsTheRange) {
  const Tensor x0 = wrapped("{type: clip, range: 0.25}")->denoise(noisy(), 1, classes()).x0;
  EXPECT_EQ(x0.abs().max().item<float>(), 0.25f);
  const Estimate kept = wrapped("{type: clip, range: 0.25, keep_direction: true}")->denoise(noisy(), 1, classes());
  EXPECT_TRUE(at::equal(kept.x0_uncond, inner_->denoise(noisy(), 1, classes()).x0));
}

}  // namespace
}  // namespace brume::test
