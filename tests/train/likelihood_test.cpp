// The likelihood and the inversion of models whose likelihood is known: Gaussian data, and its exact denoiser.
#include "brume/diffusion/likelihood.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "brume/diffusion/inversion.h"
#include "brume/diffusion/sampling_run.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr double std_of_data = 0.5, mean_of_data = 0.1;

ModelOptions gaussian_model(const std::string& noise = "linear") {
  ModelOptions options;
  read_config(
      builtins(),
      parse_yaml("{image: {channels: 1, height: 4, width: 4}, network: {type: gaussian, mean: 0.1, std: 0.5}, parameterization: x0, "
                 "noise: " +
                     noise + "}",
                 "model"),
      options);
  return options;
}

Tensor normal(int64_t count, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn({count, 1, 4, 4}, random, at::TensorOptions().dtype(at::kFloat)) * std_of_data + mean_of_data;
}

/// log N(x; mean, variance) in nats, of a whole image.
double log_normal(const Tensor& x, double mean, double variance) {
  const Tensor d = x.to(at::kDouble) - mean;
  return -0.5 * (d.square().sum().item<double>() / variance + double(x.numel()) * std::log(2 * M_PI * variance));
}

SampleOptions sampling(const std::string& yaml) {
  SampleOptions options;
  read_config(builtins(), parse_yaml(yaml, "sample"), options);
  return options;
}

class OdeLikelihoodOf : public testing::TestWithParam<const char*> {};

TEST_P(OdeLikelihoodOf, TheGaussianIsExact) {
  const ModelOptions options = gaussian_model(GetParam());
  const Pipeline model(options, {});
  const Tensor x = normal(3, 4);
  const double least = options.noise->sigma(options.noise->t_min()), most = options.noise->sigma(options.noise->t_max());
  for (const auto probe : {OdeOptions::Probe::rademacher, OdeOptions::Probe::gaussian}) {
    OdeOptions ode{{1e-7, 1e-7}, probe, probe == OdeOptions::Probe::gaussian ? 512 : 1};
    for (int64_t i = 0; i < 3; ++i) {
      const auto noise = per_image_noise(1, i);
      const Tensor one = x.narrow(0, i, 1);
      const OdeLikelihood l = ode_likelihood(*model.denoiser(), one, {}, *options.noise, ode, *noise);
      // The prior is N(0, 1 + most^2) where the data's own would be N(mean, std^2 + most^2).
      const double there =
          log_normal(l.latent, 0, 1 + most * most) - log_normal(l.latent, mean_of_data, std_of_data * std_of_data + most * most);
      const double exact = log_normal(one, mean_of_data, std_of_data * std_of_data + least * least) + there;
      // J is a multiple of the identity: Rademacher probes have its trace exactly, normal ones within sqrt(2 / (16 * 512)).
      EXPECT_NEAR(l.log_p, exact, probe == OdeOptions::Probe::rademacher ? 1e-3 : 3.0) << i;
      EXPECT_GT(l.evaluations, 10);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Schedules, OdeLikelihoodOf, testing::Values("linear", "cosine", "angle"),
                         [](const auto& i) { return std::string(i.param); });

TEST(Likelihood, BitsPerDimensionAreOfEightBitLevels) {
  // An even density over [-1 - 1/255, 1 + 1/255] has 8 bits per pixel.
  EXPECT_NEAR(bits_per_dim(-3 * std::log(256 / 127.5), 3), 8, 1e-12);
}

TEST(Likelihood, DequantisedImagesStayWithinTheirLevels) {
  const Tensor x = normal(5, 1).clamp(-1, 1);
  const Tensor d = dequantized(x, 7, 0);
  EXPECT_LE((d - x).abs().max().item<double>(), 0.5 / 127.5 + 1e-6);
  EXPECT_GT((d - x).abs().max().item<double>(), 0.4 / 127.5);
  EXPECT_TRUE(dequantized(x.narrow(0, 3, 2), 7, 3).equal(d.narrow(0, 3, 2)));  // image i does not depend on its batch
  EXPECT_FALSE(dequantized(x, 8, 0).equal(d));
}

/// With the exact denoiser the bound comes down towards the entropy as the steps grow, and never below it.
TEST(Likelihood, TheBoundComesDownToTheEntropy) {
  const ModelOptions options = gaussian_model("cosine");
  const Pipeline model(options, {});
  // 8-bit levels of Gaussian data.
  const Tensor x = (normal(2000, 9).clamp(-1, 1) * 127.5).round() / 127.5;
  const double entropy = 0.5 * std::log2(2 * M_PI * M_E * std_of_data * std_of_data) + std::log2(127.5);
  double before = 1000;
  for (const int64_t steps : {25, 100, 1000}) {
    const AncestralChain chain = training_chain(*options.noise, steps);
    const auto noise = batch_noise(3);
    const VariationalBound b = variational_bound(*model.denoiser(), x, {}, chain, options.noise->start_std(chain.sigma(chain.size() - 1)),
                                                 {StepVariance::small, false}, *noise);
    const double bits = b.total().mean().item<double>();
    EXPECT_LT(bits, before) << steps;
    EXPECT_GT(bits, entropy - 0.1) << steps;  // the data are clamped, and a sample
    EXPECT_EQ(b.terms.size(1), steps);
    before = bits;
  }
  // Not quite: DDPM's first steps, whose sigmas grow by sqrt(2), sqrt(3/2), ..., lose some gamma / 2 nats, 0.42 bits, and the decoder some.
  EXPECT_LT(before, entropy + 0.65);
}

/// A wrong denoiser gives more bits: the exact one is the minimum.
TEST(Likelihood, TheExactGaussianIsTheMinimum) {
  const Tensor x = (normal(500, 9).clamp(-1, 1) * 127.5).round() / 127.5;
  const auto bits = [&](const std::string& std) {
    ModelOptions options;
    read_config(builtins(),
                parse_yaml("{image: {channels: 1, height: 4, width: 4}, network: {type: gaussian, mean: 0.1, std: " + std +
                               "}, parameterization: x0, noise: cosine}",
                           "model"),
                options);
    const Pipeline model(options, {});
    const AncestralChain chain = training_chain(*options.noise, 100);
    const auto noise = batch_noise(3);
    return variational_bound(*model.denoiser(), x, {}, chain, 1e4, {StepVariance::small, false}, *noise).terms.sum(1).mean().item<double>();
  };
  const double exact = bits("0.5");
  EXPECT_LT(exact, bits("0.4"));
  EXPECT_LT(exact, bits("0.65"));
}

TEST(Inversion, TheErrorFallsWithTheSteps) {
  const ModelOptions options = gaussian_model();
  const Pipeline model(options, {});
  const Tensor x = normal(4, 2);
  SampleOptions sample = sampling("{sampler: ddim, spacing: trailing}");
  double before = 1;
  for (const int64_t steps : {10, 20, 50, 100, 1000}) {
    sample.steps = steps;
    const Tensor noise = invert(model, {x, std::vector<Annotation>(4), 3, {}}, sample);
    SampleRequest back;
    back.images.resize(4);
    back.initial_noise = noise;
    const double error = reconstruction_error(x, sample_images(model, back, sample)).mean().item<double>();
    EXPECT_LT(error, before) << steps;
    before = error;
    if (steps < 1000) continue;
    EXPECT_LT(error, 1e-4);
    const Tensor exact = (x - mean_of_data) / std_of_data;  // the flow keeps the place within the Gaussian
    EXPECT_LT((noise - exact).abs().max().item<double>(), 0.1);
  }
}

TEST(Inversion, AnImageDoesNotDependOnItsBatch) {
  const Pipeline model(gaussian_model(), {});
  const Tensor x = normal(4, 2);
  const SampleOptions sample = sampling("{sampler: ddim, steps: 10}");
  const Tensor all = invert(model, {x, std::vector<Annotation>(4), 4, {}}, sample);
  EXPECT_TRUE(invert(model, {x.narrow(0, 2, 1), std::vector<Annotation>(1), 1, {}}, sample).equal(all.narrow(0, 2, 1)));
}

TEST(Inversion, Refusals) {
  const Pipeline model(gaussian_model(), {});
  const auto said = [&](const std::string& yaml, const Tensor& images) {
    return error_of([&] { invert(model, {images, std::vector<Annotation>(size_t(images.size(0))), 1, {}}, sampling(yaml)); });
  };
  EXPECT_EQ(said("{sampler: {type: ddim, eta: 1}}", normal(1, 1)),
            "sample.sampler: adds noise, and an image cannot be followed back through it; take a deterministic one, like ddim at eta 0");
  EXPECT_EQ(said("{sampler: ddim}", at::zeros({1, 1, 4, 5})), "the images have shape [1, 1, 4, 5], and the model makes [1, 1, 4, 4]");
}

}  // namespace
}  // namespace brume::test
