// The networks that are known in closed form give the data back that they stand for, in whatever frame and parameterization a model has.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include "brume/config/yaml.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/train/options.h"
#include "support/registry.h"

namespace brume::test {
namespace {

struct Model {
  Config config;
  std::unique_ptr<Pipeline> pipeline;
  explicit Model(const std::string& model, const std::string& sample) {
    Registry registry = builtins();
    const std::string yaml = "model: {image: {channels: 1, height: 4, width: 4}, " + model + "}\nsample: {" + sample + "}\n";
    config = read_configuration(registry, parse_yaml(yaml, "model.yaml"));
    pipeline = std::make_unique<Pipeline>(config.model, Compute{});
  }
  Tensor sample(const std::vector<Annotation>& wanted) const {
    SampleRequest request;
    request.images = wanted;
    request.batch = 512;
    return sample_images(*pipeline, request, config.sample).to(at::kDouble);
  }
};

std::vector<Annotation> classes(int64_t count, int64_t label) {
  std::vector<Annotation> wanted(static_cast<size_t>(count));
  for (Annotation& a : wanted) a.label = label;
  return wanted;
}

class ExactNetwork : public testing::TestWithParam<std::pair<std::string, std::string>> {};

TEST_P(ExactNetwork, GivesItsGaussianBack) {
  const auto& [noise, parameterization] = GetParam();
  const Model model("network: {type: gaussian, mean: 0.2, std: 0.3}, noise: " + noise + ", parameterization: " + parameterization,
                    noise == "flow" ? "sampler: {type: heun, time: flow, scale: flow}, spacing: flow, steps: 100"
                                    : "sampler: heun, spacing: karras, steps: 100");
  const Tensor images = model.sample(classes(512, -1));  // 8192 pixels: their mean is known to 0.0033, their spread to 0.0024
  EXPECT_NEAR(images.mean().item<double>(), 0.2, 0.014);
  EXPECT_NEAR(images.std().item<double>(), 0.3, 0.01);
}

INSTANTIATE_TEST_SUITE_P(Frames, ExactNetwork,
                         testing::Values(std::pair("cosine", "x0"), std::pair("cosine", "eps"), std::pair("cosine", "v"),
                                         std::pair("linear", "eps"), std::pair("edm", "edm"), std::pair("edm", "x0"),
                                         std::pair("ve", "score"), std::pair("flow", "flow"), std::pair("sub_vp", "v"),
                                         std::pair("edm", "consistency")),
                         [](const auto& info) { return info.param.first + "_" + info.param.second; });

// What a network receives between two training times, if the levels of the steps are rounded and those between them are not.
TEST(TimestepRoundings, OfStepsAlone) {
  const Model model("network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, zero_init: false}, noise: linear",
                    "steps: 4");
  const Pipeline& p = *model.pipeline;
  const at::NoGradGuard no_grad;
  const NoiseSchedule& noise = *model.config.model.noise;
  const double step = noise.sigma(300.4), between = noise.sigma(200.4);
  const Tensor x = at::full({1, 1, 4, 4}, 0.3, at::kFloat);
  const auto told = [&](TimestepRounding rule, double sigma) { return p.denoiser(rule, {step})->denoise(x, sigma, {}).x0; };
  for (const double sigma : {step, between})
    EXPECT_FALSE(told(TimestepRounding::nearest, sigma).equal(told(TimestepRounding::exact, sigma)));
  EXPECT_TRUE(told(TimestepRounding::nearest_step, step).equal(told(TimestepRounding::nearest, step)));
  EXPECT_TRUE(told(TimestepRounding::nearest_step, between).equal(told(TimestepRounding::exact, between)));
}

// The classes of a mixture: asked for one, each image is of its ground; asked for none, of any, as often of each.
TEST(Mixture, ClassesAreItsGrounds) {
  const std::string network = "network: {type: mixture, means: [-0.6, 0, 0.6], std: 0.1}, noise: cosine, parameterization: v, ";
  const std::string sample = "sampler: heun, spacing: karras, steps: 60";
  const Model told(network + "conditioner: {type: class_label, classes: 3, dropout: 0.1}", sample);
  for (const int64_t label : {0, 1, 2}) {
    const Tensor images = told.sample(classes(64, label));
    EXPECT_NEAR(images.mean().item<double>(), -0.6 + 0.6 * double(label), 0.02);
    EXPECT_NEAR(images.std().item<double>(), 0.1, 0.01);
  }
  const Model free(network + "conditioner: none", sample);
  const Tensor ground = free.sample(classes(300, -1)).flatten(1).mean(1);
  for (const double mean : {-0.6, 0.0, 0.6}) {
    const double share = (ground - mean).abs().lt(0.2).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(share, 1.0 / 3, 0.11) << mean;  // four standard deviations of a third of 300
  }
}

// cfg of scale 0 is the unconditional model, whatever class is asked for; between two grounds a larger scale moves away from the other.
TEST(Mixture, GuidanceIsExact) {
  const std::string network =
      "network: {type: mixture, means: [-0.3, 0.3], std: 0.3}, noise: cosine, parameterization: eps, conditioner: {type: class_label, "
      "classes: 2, dropout: 0.1}";
  const auto mean = [&](double scale, int64_t label) {
    const Model model(network, fmt::format("sampler: heun, spacing: karras, steps: 40, guidance: [{{type: cfg, scale: {}}}]", scale));
    return model.sample(classes(256, label)).mean().item<double>();
  };
  EXPECT_NEAR(mean(0, 0), mean(0, 1), 1e-6);
  EXPECT_NEAR(mean(1, 1), 0.3, 0.02);
  EXPECT_GT(mean(3, 1), mean(1, 1) + 0.005);
  EXPECT_LT(mean(3, 0), mean(1, 0) - 0.005);
}

// Both would ask for the estimate without the condition, which is there once.
TEST(Mixture, OneGuidanceAsksWithoutTheCondition) {
  const std::string network = "network: mixture, noise: cosine, conditioner: {type: class_label, classes: 3, dropout: 0.1}";
  const auto error = [&](const std::string& guidance) {
    return error_of([&] { Model(network, "steps: 4, guidance: [" + guidance + "]").sample(classes(1, 0)); });
  };
  EXPECT_EQ(error("{type: cfg, scale: 2}, cfg_plus_plus"),
            "model.yaml:2:54: sample.guidance.1: asks for the estimate without the condition, as sample.guidance.0 does: one of them can");
  EXPECT_EQ(error("{type: cfg, scale: 1}, cfg_plus_plus"), "no error");
}

TEST(Mixture, ItsClassesAreThoseOfTheConditioner) {
  EXPECT_EQ(
      error_of([] { Model("network: {type: mixture, means: [0, 1]}, conditioner: {type: class_label, classes: 5}", "steps: 5"); }),
      "model.yaml:1:61: model.network: means: has 2 grounds, and the conditioner tells 6 classes (with the null class, if it has one)");
}

}  // namespace
}  // namespace brume::test
