// A Stable Diffusion of nine channels as StableDiffusionInpaintPipeline samples it, its steps written out here: a network that takes
// [latent, mask, latent of the masked image] as one input, in either half of cfg, and DDIM's formula. The model is tiny_sd
// (shared/refs/pipe) with five channels more.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/diffusion/sampling_run.h"
#include "brume/interop/import/import.h"
#include "brume/interop/layouts/sections.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/tiny_sd.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

/// tiny_sd with a convolution that takes five channels more.
void write_directory(const TempFolder& folder) {
  fs::copy(ref_path("pipe/tiny_sd"), folder.path() / "sd", fs::copy_options::recursive);
  const std::string weights = folder.file("sd/unet/diffusion_pytorch_model.safetensors");
  NamedTensors all = load_tensors(weights);
  at::Generator random = at::detail::createCPUGenerator(9);
  for (NamedTensor& t : all)
    if (t.name == "conv_in.weight")
      t.tensor = at::cat({t.tensor, at::randn({t.tensor.size(0), 5, 3, 3}, random, at::TensorOptions().dtype(at::kFloat)) * 0.2}, 1);
    else
      t.tensor = t.tensor.clone();
  fs::remove(weights);
  write_safetensors(weights, all);
  std::string config = read_text(folder.path() / "sd/unet/config.json");
  folder.file("sd/unet/config.json", config.replace(config.find("\"in_channels\": 4"), 16, "\"in_channels\": 9"));
}

/// sqrt of the cumulated alphas of Stable Diffusion's schedule, and of what is left.
std::pair<double, double> signal_and_noise(int64_t t) {
  double left = 1;
  for (int64_t i = 0; i <= t; ++i) {
    const double root = std::sqrt(0.00085) + (std::sqrt(0.012) - std::sqrt(0.00085)) * double(i) / 999;
    left *= 1 - root * root;
  }
  return {std::sqrt(left), std::sqrt(1 - left)};
}

SampleRequest inpainting_request() {
  SampleRequest request;
  request.images = {{.caption = "a photograph of an astronaut riding a horse"}};
  request.seed = 3;
  request.image = ((at::arange(3 * 32 * 32, at::kDouble) * 0.11 + 0.2).sin() * 0.9).to(at::kFloat).view({1, 3, 32, 32});
  Tensor drawn = at::zeros({1, 1, 32, 32});
  drawn.narrow(2, 8, 16).narrow(3, 3, 20).fill_(1);    // 3 of every 2: the nearest is taken
  drawn.narrow(2, 24, 2).narrow(3, 4, 16).fill_(0.6);  // more than half is open, less is known
  drawn.narrow(2, 26, 2).narrow(3, 4, 16).fill_(0.4);
  request.mask = drawn;
  return request;
}

/// Returns x of each step, in the frame of diffusers.
std::vector<Tensor> steps_of(Pipeline& pipeline, SampleRequest request, const Config& config) {
  std::vector<Tensor> steps;
  request.observer = [&](int64_t, const Step& step) {
    steps.push_back(step.x * config.model.noise->signal(step.sigma));
    return true;
  };
  sample_images(pipeline, request, config.sample);
  return steps;
}

TEST(InpaintingParity, IsDiffusersStepByStep) {
  BRUME_NEED_REF("pipe/tiny_sd/model_index.json");
  const at::NoGradGuard no_grad;
  const TempFolder folder;
  write_directory(folder);
  const Imported imported = import_model(folder.path() / "sd");
  Value root = Value::map();
  root.set("model", imported.options);
  root.set("sample", imported.sample);
  apply_override(root, "sample.steps=10");
  apply_override(root, "sample.noise_order=batch");
  Registry registry = builtins();
  const Config config = read_configuration(registry, root);
  Pipeline pipeline(config.model, Compute{}, 0, &imported.files);
  load_weights("sd", imported.tensors, pipeline.weights());

  const SampleRequest request = inpainting_request();
  const std::vector<Tensor> steps = steps_of(pipeline, request, config);
  ASSERT_EQ(steps.size(), 10u);

  // The same by hand.
  const Config plain = tiny_sd_config();
  const auto parts = tiny_sd(plain);  // its first stage and its words
  const auto network =
      make<Network>(dump_yaml(*imported.options.find("network")), {.input = {9, 16, 16}, .out_channels = 4, .context_width = 32});
  load_weights("sd", below(imported.tensors, "network."), network->weights());
  const Condition words = parts->condition(request.images);
  const Tensor open = (request.mask >= 0.5).to(at::kFloat), mask = open.slice(2, 0, 32, 2).slice(3, 0, 32, 2);
  at::Generator random = at::detail::createCPUGenerator(3);
  Tensor z = at::randn({1, 4, 16, 16}, random, at::TensorOptions().dtype(at::kFloat));
  const Tensor masked = parts->autoencoder().latents_of(parts->autoencoder().encode_moments(request.image * (1 - open)), &random);
  double error = 0;
  for (int64_t i = 0; i < 10; ++i) {
    error = std::max(error, (steps[size_t(i)] - z).abs().max().item<double>());
    const int64_t t = 901 - 100 * i;
    const auto eps = [&](const Tensor& context) {
      return network->forward(at::cat({z, mask, masked}, 1), at::tensor({float(t)}), Condition{.classes = {}, .context = context}, nullptr);
    };
    const Tensor uncond = eps(words.null->context), noise = uncond + (eps(words.context) - uncond) * 7.5;
    const auto [signal, spread] = signal_and_noise(t);
    const auto [next_signal, next_spread] = signal_and_noise(std::max<int64_t>(0, t - 100));
    z = (z - noise * spread) / signal * next_signal + noise * next_spread;
  }
  const double allowed = 1e-4 * z.abs().max().item<double>();
  fmt::print("inpainting with nine channels: largest error of a latent {:.2e} of {:.2e} allowed\n", error, allowed);
  EXPECT_LE(error, allowed);
}

}  // namespace
}  // namespace brume::test
