// Parity with diffusers' StableDiffusionImg2ImgPipeline on a small model (shared/refs/pipe/tiny_sd_img2img_*), and what holds of inpainting
// there: steps written out as StableDiffusionInpaintPipeline takes them.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "brume/diffusion/sampling_run.h"
#include "brume/weights/weights_file.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tiny_sd.h"

namespace brume::test {
namespace {

const std::string name = "pipe/tiny_sd_img2img_s1.0_seed3";

double worst(const Tensor& got, const Tensor& wanted) {
  EXPECT_EQ(got.sizes(), wanted.sizes());
  return (got - wanted).abs().max().item<double>();
}

class ImageToImage : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(name + ".json");
    config = tiny_sd_config();
    pipeline = tiny_sd(config);
    const Tensor i = at::arange(3 * 32 * 32, at::kDouble);
    request.image = ((0.5 + (i * 0.11 + 0.2).sin() * 0.45).to(at::kFloat) * 2 - 1).view({1, 3, 32, 32});
    request.images = {{.caption = "a photograph of an astronaut riding a horse"}};
    request.seed = 3;
  }
  /// x in the network's frame after every step but the last, as the reference records it.
  std::vector<Tensor> run() {
    std::vector<Tensor> steps;
    request.observer = [&](int64_t, const Step& step) {
      steps.push_back(step.x * config.model.noise->signal(step.sigma));
      sigmas.push_back(step.sigma);
      return true;
    };
    made = sample_images(*pipeline, request, config.sample);
    return steps;
  }
  Config config;
  std::unique_ptr<Pipeline> pipeline;
  SampleRequest request;
  std::vector<double> sigmas;
  Tensor made;
};

TEST_F(ImageToImage, IsDiffusersStepByStep) {
  const NamedTensors wanted = load_tensors(ref_path(name + ".safetensors").string());
  const Tensor latents = *find(wanted, "latents_steps");
  const std::vector<Tensor> steps = run();
  ASSERT_EQ(steps.size(), 10u);
  const double allowed = 1e-4 * latents.abs().max().item<double>();
  double error = 0;
  for (size_t i = 1; i < steps.size(); ++i) error = std::max(error, worst(steps[i], latents[int64_t(i) - 1]));
  const double image = worst((made / 2 + 0.5).clamp(0, 1), *find(wanted, "image"));
  fmt::print("image to image: largest error of a latent {:.2e} of {:.2e} allowed, of the image {:.2e} of 2e-4\n", error, allowed, image);
  EXPECT_LE(error, allowed);
  EXPECT_LE(image, 2e-4);
}

/// The steps of StableDiffusionInpaintPipeline with a network of four channels, by the same parts: latents = (1 - m) known noised to the
/// next time + m latents, begun from noise alone if all steps are run.
TEST_F(ImageToImage, InpaintingIsDiffusersStepByStep) {
  const at::NoGradGuard no_grad;
  request.mask = at::zeros({1, 1, 32, 32});
  request.mask.narrow(2, 8, 16).narrow(3, 3, 20).fill_(1);  // 3 of every 2: the nearest is taken
  config.sample.guidance.push_back(make<Guidance>("inpaint"));
  for (const double strength : {1.0, 0.6}) {
    request.strength = strength;
    sigmas.clear();
    const std::vector<Tensor> steps = run();
    at::Generator random = at::detail::createCPUGenerator(3);
    const Tensor known = pipeline->autoencoder().latents_of(pipeline->autoencoder().encode_moments(request.image), &random);
    const Tensor noise = at::randn(known.sizes(), random, at::TensorOptions().dtype(at::kFloat));
    Tensor mask = at::zeros({1, 1, 16, 16});
    mask.narrow(2, 4, 8).narrow(3, 2, 10).fill_(1);
    SampleOptions plain = config.sample;
    plain.guidance.pop_back();
    const auto denoiser = guided_denoiser(*pipeline, plain, no_models());
    const Condition condition = pipeline->condition(request.images);
    const double first = sigmas[0];
    Tensor x = strength == 1 ? noise * config.model.noise->start_std(first) : known + noise * first;
    double error = 0;
    for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
      const Tensor x0 = denoiser->denoise(x, sigmas[i], condition).x0;
      x = x0 + (x - x0) * (sigmas[i + 1] / sigmas[i]);
      x = (known + noise * sigmas[i + 1]) * (1 - mask) + x * mask;
      error = std::max(error, worst(steps[i + 1], x * config.model.noise->signal(sigmas[i + 1])));
    }
    EXPECT_EQ(sigmas.size(), strength == 1 ? 10u : 6u);
    fmt::print("inpainting at strength {}: largest error of a latent {:.2e}\n", strength, error);
    EXPECT_LE(error, 3e-3);  // of up to 33: 1e-4 of that
  }
}

TEST_F(ImageToImage, DoesNotDependOnTheBatch) {
  config.sample.noise_order = NoiseOrder::per_image;
  config.sample.steps = 2;
  request.images = {{.caption = "a"}, {.caption = "b"}, {.caption = "c"}};
  request.batch = 1;
  run();
  const Tensor one_by_one = made;
  request.batch = 3;
  run();
  EXPECT_LE(worst(made, one_by_one), 1e-4);
  EXPECT_GT(worst(made[0], made[1]), 1e-2) << "each has a latent and noise of its own";
}

}  // namespace
}  // namespace brume::test
