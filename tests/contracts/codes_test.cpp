// Objectives and samplers of codes: the laws that `brume conform` measures, and a joint distribution of two positions that is known.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/config/plugin_loader.h"
#include "brume/core/autoencoder.h"
#include "brume/numerics/code_chain.h"
#include "brume/train/options.h"
#include "support/laws.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr int64_t K = 3;
const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);

TEST(Codes, ObjectivesAndSamplersKeepTheirLaws) {
  for (const char* yaml : {"d3pm", "{type: d3pm, lambda: 0}", "mdlm"}) {
    SCOPED_TRACE(yaml);
    expect_to_hold(conform(*make<Objective>(yaml)));
  }
  for (const char* yaml : {"d3pm", "{type: d3pm, kernel: uniform}", "mdlm"}) {
    SCOPED_TRACE(yaml);
    expect_to_hold(conform(*make<Sampler>(yaml)));
  }
}

/// P(a, b) of two positions side by side.
const Tensor& joint() {
  static const Tensor p = [] {
    const Tensor raw = at::tensor({.30, .05, .02, .03, .20, .05, .05, .10, .20}, f64).view({K, K});
    return raw / raw.sum();
  }();
  return p;
}

/// What the other position says of each: sum over its x0 of P q(x_t | x0). x: [B, K, 1, 2]; alpha: [B, 1].
Tensor exact_logits(CodeKernel kernel, const Tensor& x, const Tensor& alpha) {
  const auto said = [&](int64_t position, const Tensor& table) {  // table[other, this]
    const Tensor seen = x.select(3, position).squeeze(2).to(at::kDouble);
    const Tensor hidden = 1 - seen.sum(1, true);
    const Tensor likelihood = kernel == CodeKernel::uniform ? seen * alpha + (1 - alpha) / double(K) : seen * alpha + hidden * (1 - alpha);
    return likelihood.matmul(table).log();
  };
  const Tensor logits = at::stack({said(1, joint().t()), said(0, joint())}, 2).unsqueeze(2);
  return logits.to(x.scalar_type());
}

class JointDenoiser final : public Denoiser {
 public:
  JointDenoiser(CodeKernel kernel, std::shared_ptr<const NoiseSchedule> schedule) : kernel_(kernel), schedule_(std::move(schedule)) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = exact_logits(kernel_, x, at::full({x.size(0), 1}, code_rate(*schedule_, sigma), f64));
    return d;
  }

 private:
  CodeKernel kernel_;
  std::shared_ptr<const NoiseSchedule> schedule_;
};

struct Setting {
  std::string sampler = "mdlm";
  CodeKernel kernel = CodeKernel::absorbing;
  int64_t steps = 200;
  Condition condition{};
  std::function<bool(const Step&)> observer{};
};

Tensor sample(const Setting& s, int64_t count) {
  const auto schedule = make<NoiseSchedule>("{type: cosine, timesteps: 200}");
  std::vector<double> sigmas;
  for (int64_t i = 0; i < s.steps; ++i) sigmas.push_back(schedule->sigma(199 - double(i) * 200 / double(s.steps)));
  sigmas.push_back(0);
  const auto noise = per_image_noise(5, 0);
  Run run{s.condition, *noise, s.observer, schedule.get()};
  const Tensor x = per_image_noise(4, 0)->draw(at::zeros({count, K, 1, 2}), 1, 1);
  return make<Sampler>(s.sampler)->sample(JointDenoiser(s.kernel, schedule), x, sigmas, run);
}

/// Chi-square of the nine pairs.
double chi_square(const Tensor& x) {
  const Tensor codes = x.argmax(1).flatten(1), pairs = codes.select(1, 0) * K + codes.select(1, 1);
  const double count = double(x.size(0));
  double chi = 0;
  for (int64_t i = 0; i < K * K; ++i) {
    const double wanted = count * joint().flatten()[i].item<double>();
    chi += std::pow((pairs == i).sum().item<double>() - wanted, 2) / wanted;
  }
  return chi;
}

/// 26.1 is the 99.9 % quantile with 8 degrees of freedom; that positions step side by side adds 0.2 with 200 steps.
TEST(Codes, TheExactPosteriorGivesTheJointDistribution) {
  EXPECT_LT(chi_square(sample({.sampler = "mdlm"}, 4000)), 26.1);
  EXPECT_LT(chi_square(sample({.sampler = "d3pm"}, 4000)), 26.1);
  EXPECT_LT(chi_square(sample({.sampler = "{type: d3pm, kernel: uniform}", .kernel = CodeKernel::uniform}, 4000)), 26.1);
  EXPECT_GT(chi_square(sample({.sampler = "mdlm", .steps = 1}, 4000)), 200) << "one step draws the two apart";
}

TEST(Codes, UnmaskingIsTheAbsorbingChain) {
  for (const int64_t steps : {1, 5, 20})
    EXPECT_TRUE(at::equal(sample({.sampler = "mdlm", .steps = steps}, 200), sample({.sampler = "d3pm", .steps = steps}, 200))) << steps;
}

TEST(Codes, WhatIsUnmaskedStays) {
  for (const char* sampler : {"mdlm", "d3pm", "{type: mdlm, order: confidence}"}) {
    Tensor before;
    int64_t shown = 0;
    const Tensor end = sample({.sampler = sampler,
                               .steps = 20,
                               .observer =
                                   [&](const Step& step) {
                                     if (before.defined()) {
                                       EXPECT_TRUE(at::equal(step.x * before, before)) << sampler << ", step " << step.index;
                                     }
                                     before = step.x.clone();
                                     shown += step.x.sum().item<int64_t>() > 0;
                                     return true;
                                   }},
                              50);
    EXPECT_TRUE(at::equal(end * before, before)) << sampler;
    EXPECT_EQ(end.sum().item<double>(), 100) << sampler;
    EXPECT_GT(shown, 5) << sampler;
  }
}

TEST(Codes, WhatIsKnownStays) {
  Condition condition;
  condition.known = one_hot(at::full({30, 1, 2}, 2, at::kLong), K, at::kFloat);
  condition.mask = at::tensor({0.0f, 1.0f}).view({1, 1, 1, 2}).expand({30, 1, 1, 2});
  for (const char* sampler : {"mdlm", "d3pm", "{type: mdlm, order: confidence}"}) {
    const Tensor codes = sample({.sampler = sampler, .steps = 20, .condition = condition}, 30).argmax(1);
    EXPECT_TRUE((codes.select(2, 0) == 2).all().item<bool>()) << sampler;
    EXPECT_FALSE((codes.select(2, 1) == 2).all().item<bool>()) << sampler;
  }
}

TEST(Codes, MoreStepsThanTheChain) {
  EXPECT_EQ(error_of([] { sample({.sampler = "mdlm", .steps = 201}, 1); }), "201 steps are more than the chain of codes has, 200");
  EXPECT_EQ(error_of([] { sample({.sampler = "d3pm", .steps = 400}, 1); }), "400 steps are more than the chain of codes has, 200");
}

/// Knows the joint distribution.
class JointModel final : public TrainableModel {
 public:
  JointModel(const std::string& schedule, const std::string& kernel)
      : schedule_(make<NoiseSchedule>(schedule)), parameterization_(make<Parameterization>("{type: logits, kernel: " + kernel + "}")) {}
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition&) const override {
    std::vector<double> alpha;
    for (const double sigma : sigmas) alpha.push_back(code_rate(*schedule_, sigma));
    return {exact_logits(*of_codes(*parameterization_)->kernel(), x, at::tensor(alpha, f64).view({-1, 1})), {}};
  }
  const NoiseSchedule& schedule() const override { return *schedule_; }
  const Parameterization& parameterization() const override { return *parameterization_; }

 private:
  std::shared_ptr<const NoiseSchedule> schedule_;
  std::shared_ptr<const Parameterization> parameterization_;
};

/// Pairs in the shares of the joint distribution.
Tensor pairs(int64_t count, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  const Tensor u = at::rand({count, 1, 1, 1}, random, f64);
  const Tensor pair = drawn(joint().view({1, K * K, 1, 1}).expand({count, -1, 1, 1}), u);
  return one_hot(at::cat({pair.floor_divide(K), pair.remainder(K)}, 2), K, at::kFloat);
}

double loss(const std::string& objective, const std::string& schedule, const std::string& kernel, int64_t count, uint64_t seed = 1) {
  const at::NoGradGuard no_grad;
  const JointModel model(schedule, kernel);
  at::Generator random = at::detail::createCPUGenerator(seed);
  Training training;
  return make<Objective>(objective)->loss(model, pairs(count, seed + 100), {}, training, random).item<double>();
}

/// The bound of a model that knows the data is their entropy, if the chain is long: for the absorbing chain by the chain rule over the
/// random order in which codes are revealed.
TEST(Codes, TheBoundOfTheExactModelIsTheEntropy) {
  const double entropy = -(joint() * joint().log()).sum().item<double>() / 2;
  const std::string d3pm = "{type: d3pm, lambda: 0, time: low_discrepancy}", flow = "{type: flow, t_min: 1.0e-5}";
  EXPECT_NEAR(loss("mdlm", flow, "absorbing", 200000), entropy, 0.02);
  EXPECT_NEAR(loss("mdlm", "{type: cosine, timesteps: 2000}", "absorbing", 200000), entropy, 0.02);
  EXPECT_NEAR(loss(d3pm, "{type: cosine, timesteps: 2000}", "absorbing", 200000), entropy, 0.02);
  EXPECT_NEAR(loss(d3pm, "{type: cosine, timesteps: 2000}", "uniform", 200000), entropy, 0.05);
}

TEST(Codes, MaskedDiffusionOfAChainIsItsBound) {
  for (const char* schedule : {"{type: cosine, timesteps: 5}", "{type: cosine, timesteps: 1000}"})
    EXPECT_NEAR(loss("{type: mdlm, time: uniform}", schedule, "absorbing", 500),
                loss("{type: d3pm, lambda: 0}", schedule, "absorbing", 500), 1e-5);
}

TEST(Codes, LatentsAreCodesOfTheFirstStage) {
  const at::NoGradGuard no_grad;
  const Files no_files;
  const std::string vq = "{type: vq, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, codes: 16}";
  const Autoencoder::Context context{.image = {3, 16, 16}, .seed = 5, .stored = &no_files};
  const auto inner = make<Autoencoder>(vq, context), codes = make<Autoencoder>("{type: codes, first_stage: " + vq + "}", context);
  at::Generator random = at::detail::createCPUGenerator(1);
  const Tensor x = at::rand({2, 3, 16, 16}, random, at::TensorOptions().dtype(at::kFloat)) * 2 - 1, z = codes->encode(x);
  EXPECT_EQ(z.sizes(), at::IntArrayRef({2, 16, 8, 8}));
  EXPECT_TRUE(((z == 0).logical_or(z == 1)).all().item<bool>());
  EXPECT_TRUE((z.sum(1) == 1).all().item<bool>());
  EXPECT_TRUE(at::equal(codes->decode(z), inner->decode(inner->encode(x))));
  EXPECT_TRUE(at::equal(codes->decode(z * 7 - 3), codes->decode(z))) << "logits decode as codes do";
  const std::string refused = error_of([&] { make<Autoencoder>("{type: codes, first_stage: identity}", context); });
  EXPECT_NE(refused.find("first_stage: identity has no codebook; take vq, or a checkpoint of one"), std::string::npos) << refused;
}

std::string said(const std::string& model, const std::string& train, const std::string& sample) {
  const std::string text = fmt::format(
      "model: {{image: {{channels: 3, height: 16, width: 16}}, network: {{type: dit, patch: 1, width: 16, depth: 1, heads: 2}}, {}}}\n"
      "train: {{data: shapes, {}}}\nsample: {{{}}}\n",
      model, train, sample);
  return error_of([&] {
    Registry registry;
    register_builtins(registry);
    read_configuration(registry, parse_yaml(text, "x.yaml"));
  });
}

TEST(Codes, PartsThatDoNotFit) {
  const std::string masks = "autoencoder: codes, noise: cosine, parameterization: logits";
  const auto expect = [](const std::string& text, const std::string& part) { EXPECT_NE(text.find(part), std::string::npos) << text; };
  EXPECT_EQ(said(masks, "objective: mdlm", "sampler: mdlm"), "no error");
  EXPECT_EQ(said(masks, "objective: d3pm", "sampler: mdlm"), "no error");
  expect(said(masks, "objective: simple", "sampler: mdlm"), "train.objective: trains models of continuous data");
  expect(said("parameterization: eps", "objective: mdlm", ""),
         "train.objective: trains models of codes; set model.parameterization to logits");
  expect(said(masks, "objective: mdlm", "sampler: ddim"), "sample.sampler: is for continuous data, and the model is of codes");
  expect(said("parameterization: eps", "objective: simple", "sampler: mdlm"), "sample.sampler: is for models of codes");
  expect(said(masks, "objective: mdlm", "sampler: {type: d3pm, kernel: uniform}"),
         "sample.sampler: is for uniform noise, and model.parameterization has the kernel absorbing");
  expect(said(masks, "objective: mdlm", "sampler: mdlm, guidance: [clip]"), "sample.guidance.0: limits the values of images");
  const std::string uniform = "autoencoder: codes, noise: cosine, parameterization: {type: logits, kernel: uniform}";
  expect(said(uniform, "objective: mdlm", "sampler: {type: d3pm, kernel: uniform}"), "train.objective: trains models that unmask codes");
  const std::string flow = "autoencoder: codes, noise: flow, parameterization: logits";
  expect(said(flow, "objective: d3pm", "sampler: d3pm"), "train.objective: trains a chain of steps, and model.noise has no training times");
  expect(said("autoencoder: codes, noise: edm, parameterization: logits", "objective: mdlm", "sampler: mdlm"),
         "train.objective: corrupts codes by the signal rate of model.noise, and 1 of them would be left");
}

}  // namespace
}  // namespace brume::test
