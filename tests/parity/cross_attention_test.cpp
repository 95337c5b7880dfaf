// Parity of the spatial transformer with CompVis' latent diffusion (shared/refs/net/ldm_unet_crossattn, ldm_basic_transformer_block)
// and, by way of the mapping of names, with diffusers' UNet2DConditionModel (shared/refs/pipe/tiny_sd).
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/core/network.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/interop/import/diffusers_unet.h"
#include "brume/nn/blocks/transformer.h"
#include "brume/weights/weights_file.h"
#include "support/flow.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

/// As the references ask: max|out - ref| <= 1e-4 max(1, max|ref|).
void expect_near(const Tensor& out, const Tensor& wanted, const std::string& what) {
  ASSERT_EQ(out.sizes(), wanted.sizes());
  const double error = (out - wanted).abs().max().item<double>(), allowed = 1e-4 * std::max(1.0, wanted.abs().max().item<double>());
  fmt::print("{}: largest error {:.2e} of {:.2e} allowed\n", what, error, allowed);
  EXPECT_LE(error, allowed);
}

Condition with_tokens(Tensor context) {
  Condition condition;
  condition.context = std::move(context);
  return condition;
}

TEST(CrossAttentionParity, TransformerBlock) {
  const std::string name = "net/ldm_basic_transformer_block";
  BRUME_NEED_REF(name + ".safetensors");
  const at::NoGradGuard no_grad;
  const nn::Builder build(1);
  const nn::TransformerBlock block(build, 32, 24, 4, 0);
  load_weights(ref_path(name + ".safetensors"), build.weights());
  const NamedTensors io = load_tensors(ref_path(name + "_io.safetensors"));
  expect_near(block(*find(io, "x"), {*find(io, "context")}, nullptr, nullptr), *find(io, "out.y"), "transformer block");
}

class LdmUnet : public testing::Test {
 protected:
  const std::string name = "net/ldm_unet_crossattn";
  void SetUp() override {
    BRUME_NEED_REF(name + ".safetensors");
    network = make<Network>(
        "{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [16, 8], heads: 4, scale_shift: false, "
        "transformer: {depth: [1]}}",
        {.input = {4, 16, 16}, .out_channels = 4, .context_width = 24});
    load_weights(ref_path(name + ".safetensors"), network->weights());
    io = load_tensors(ref_path(name + "_io.safetensors"));
  }
  Tensor output(const Condition& condition) const {
    return network->forward(*find(io, "x"), find(io, "t")->to(at::kFloat), condition, nullptr);
  }
  Tensor context() const { return *find(io, "context"); }

  std::shared_ptr<Network> network;
  NamedTensors io;
};

TEST_F(LdmUnet, GivesItsOutput) {
  expect_near(output(with_tokens(context())), *find(io, "out.y"), "LDM U-Net, recorded for gradients");
  const at::NoGradGuard no_grad;
  expect_near(output(with_tokens(context())), *find(io, "out.y"), "LDM U-Net");
}

TEST_F(LdmUnet, PaddingChangesNothing) {
  const at::NoGradGuard no_grad;
  Condition padded = with_tokens(at::cat({context(), at::full({2, 5, 24}, 3.0f)}, 1));
  padded.context_mask = at::ones({2, 12});
  padded.context_mask.narrow(1, 7, 5).zero_();
  expect_near(output(padded), *find(io, "out.y"), "LDM U-Net, padded");
  padded.context_mask = Tensor();
  EXPECT_GT((output(padded) - *find(io, "out.y")).abs().max().item<double>(), 0.01) << "the tokens are not looked at";
}

/// tiny_sd's U-Net, by its config.json and the mapping of names.
class DiffusersUnetParity : public testing::Test {
 protected:
  const std::string folder = "pipe/tiny_sd/unet/";
  void SetUp() override {
    BRUME_NEED_REF(folder + "config.json");
    const DiffusersUnet config = read_diffusers_unet(ref_path(folder + "config.json"));
    network = make<Network>(flow(config.options()), {.input = {config.in_channels, config.height, config.width},
                                                     .out_channels = config.out_channels,
                                                     .context_width = config.context_width});
    const NamedTensors tensors = config.tensors(load_tensors(ref_path(folder + "diffusion_pytorch_model.safetensors")));
    ASSERT_EQ(tensors.size(), network->weights().size());
    for (const Weight& w : network->weights()) {
      const Tensor* found = find(tensors, w.name);
      ASSERT_TRUE(found) << w.name;
      ASSERT_EQ(found->sizes(), w.tensor.sizes()) << w.name;
      Tensor(w.tensor).copy_(*found);
    }
  }
  std::shared_ptr<Network> network;
};

TEST_F(DiffusersUnetParity, GivesItsOutput) {
  const at::NoGradGuard no_grad;
  const NamedTensors io = load_tensors(ref_path("pipe/tiny_sd_components.safetensors"));
  const Tensor out = network->forward(*find(io, "unet_x"), find(io, "unet_t")->to(at::kFloat), with_tokens(*find(io, "unet_ctx")), nullptr);
  expect_near(out, *find(io, "unet_y"), "tiny_sd's U-Net");
}

// The first evaluation of the pipeline: [unconditional; conditional] of the initial latents.
TEST_F(DiffusersUnetParity, BeginsThePipelineAsTheReference) {
  const at::NoGradGuard no_grad;
  const NamedTensors io = load_tensors(ref_path("pipe/tiny_sd_ddim5_cfg7.5_seed42.safetensors"));
  at::Generator random = at::detail::createCPUGenerator(42);
  const Tensor x = at::randn({1, 4, 16, 16}, random, at::TensorOptions().dtype(at::kFloat)), t = *find(io, "timesteps");
  const Tensor context = at::cat({*find(io, "negative_prompt_embeds"), *find(io, "prompt_embeds")});
  const Tensor out = network->forward(x.repeat({2, 1, 1, 1}), t.narrow(0, 0, 1).to(at::kFloat).repeat({2}), with_tokens(context), nullptr);
  expect_near(out, *find(io, "unet_out_first"), "tiny_sd's U-Net in the pipeline");
}

}  // namespace
}  // namespace brume::test
