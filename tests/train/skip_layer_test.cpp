// Skip-layer guidance on a whole model: what it computes, and what it says of blocks that the network does not have.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/diffusion/sampling_run.h"
#include "brume/train/options.h"
#include "support/registry.h"

namespace brume::test {
namespace {

struct Model {
  Config config;
  std::unique_ptr<Pipeline> pipeline;
  explicit Model(const std::string& guidance, const std::string& network = "channels: 16, groups: 8, attention_resolutions: [8]") {
    const std::string yaml = "model: {image: {channels: 1, height: 8, width: 8}, network: {type: unet, multipliers: [1, 2], blocks: 1, " +
                             network + ", zero_init: false}, conditioner: {type: class_label, classes: 3}, noise: cosine}\n" +
                             "sample: {steps: 3, guidance: " + guidance + "}\n";
    Registry registry = builtins();
    config = read_configuration(registry, parse_yaml(yaml, "model.yaml"));
    pipeline = std::make_unique<Pipeline>(config.model, Compute{});
  }
  Tensor x0(const Denoiser& denoiser, double sigma) const {
    const at::NoGradGuard no_grad;
    const auto noise = per_image_noise(1, 0);
    const Tensor x = noise->draw(at::zeros({2, 1, 8, 8}), sigma, sigma) * sigma;
    return denoiser.denoise(x, sigma, pipeline->condition({{.label = 0}, {.label = 2}})).x0;
  }
  Tensor guided(double sigma) const { return x0(*guided_denoiser(*pipeline, config.sample, no_models()), sigma); }
  Tensor sampled() const {
    SampleRequest request;
    request.images = {{.label = 0}, {.label = 2}};
    return sample_images(*pipeline, request, config.sample);
  }
};

TEST(SkipLayer, IsTheEstimateAwayFromThatWithoutTheBlock) {
  const Model plain("[]"), skip("[{type: skip_layer, blocks: [middle_block.1], scale: 2}]");
  Taps taps;
  taps.blocks["middle_block.1"] = [](const Tensor& input, const std::function<Tensor()>&) { return input; };
  const Tensor whole = plain.x0(*plain.pipeline->denoiser(), 2);
  const Tensor without = plain.x0(*plain.pipeline->denoiser(TimestepRounding::exact, {}, taps), 2);
  EXPECT_FALSE(without.equal(whole));
  EXPECT_TRUE(skip.guided(2).equal(whole + (whole - without) * 2));
  EXPECT_FALSE(skip.sampled().equal(plain.sampled()));
  const Model none("[{type: skip_layer, blocks: [middle_block.1], scale: 0}]");
  EXPECT_TRUE(none.sampled().equal(plain.sampled()));
}

TEST(SkipLayer, OverCfgItMovesFromTheConditionalModel) {
  const Model cfg("[{type: cfg, scale: 3}]"), both("[{type: cfg, scale: 3}, {type: skip_layer, blocks: [middle_block.1]}]"),
      skip("[{type: skip_layer, blocks: [middle_block.1]}]"), plain("[]");
  EXPECT_TRUE(both.guided(2).allclose(cfg.guided(2) + skip.guided(2) - plain.guided(2), 1e-4, 1e-5));
}

TEST(SkipLayer, BlocksThatCannotBeSkippedAreNamed) {
  EXPECT_EQ(error_of([] { Model("[{type: skip_layer, blocks: [midle_block.1]}]").guided(2); }),
            "blocks: 'midle_block.1' cannot be skipped; did you mean 'middle_block.1'?");
  EXPECT_NE(error_of([] { Model("[{type: skip_layer, blocks: [input_blocks.0]}]").guided(2); }).find("'input_blocks.0' cannot be skipped"),
            std::string::npos);
  const Model model("[]");
  Taps taps;
  taps.blocks["midle_block.1"] = [](const Tensor& input, const std::function<Tensor()>&) { return input; };
  EXPECT_EQ(error_of([&] { model.pipeline->denoiser(TimestepRounding::exact, {}, taps); }),
            "the network has no block 'midle_block.1'; did you mean 'middle_block.1'?");
}

}  // namespace
}  // namespace brume::test
