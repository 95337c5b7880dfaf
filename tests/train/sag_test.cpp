// Self-attention guidance on a whole model, against its formula with attention maps that the test takes itself.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "brume/diffusion/sampling_run.h"
#include "brume/numerics/blur.h"
#include "brume/train/options.h"
#include "support/registry.h"

namespace brume::test {
namespace {

struct Model {
  Config config;
  std::unique_ptr<Pipeline> pipeline;
  explicit Model(const std::string& guidance) {
    const std::string yaml =
        "model: {image: {channels: 1, height: 8, width: 8}, network: {type: unet, multipliers: [1, 2], blocks: 1, channels: 16, groups: 8, "
        "attention_resolutions: [8], heads: 2, zero_init: false}, conditioner: {type: class_label, classes: 3, dropout: 0.1}, noise: "
        "cosine}\nsample: {steps: 3, guidance: " +
        guidance + "}\n";
    Registry registry = builtins();
    config = read_configuration(registry, parse_yaml(yaml, "model.yaml"));
    pipeline = std::make_unique<Pipeline>(config.model, Compute{});
  }
  static Tensor noisy() { return per_image_noise(1, 0)->draw(at::zeros({2, 1, 8, 8}), 2, 2) * 2; }
  Condition condition() const { return pipeline->condition({{.label = 0}, {.label = 2}}); }
  Tensor guided() const {
    const at::NoGradGuard no_grad;
    return guided_denoiser(*pipeline, config.sample, no_models())->denoise(noisy(), 2, condition()).x0;
  }
};

std::string sag(const std::string& options) { return fmt::format("[{{type: sag, blocks: [middle_block.1]{}}}]", options); }

/// The formula of the paper, from the model's own estimates without the condition.
Tensor by_the_formula(const Model& model, double scale, double threshold) {
  const at::NoGradGuard no_grad;
  Tensor map;
  Taps taps;
  taps.attention["middle_block.1"] = [&](const Tensor& q, const Tensor& k, const Tensor& v) {
    const Tensor p = (at::matmul(q, k.transpose(2, 3)) / std::sqrt(double(q.size(3)))).softmax(-1);
    if (!map.defined()) map = p.mean(at::IntArrayRef({1})).sum(1);
    return at::matmul(p, v);
  };
  const auto own = model.pipeline->denoiser(TimestepRounding::exact, {}, taps);
  const Tensor x = Model::noisy(), clean = own->denoise(x, 2, *model.condition().null).x0;
  EXPECT_NEAR(map.mean().item<double>(), 1, 1e-5) << "each query gives one in all";
  const int64_t side = std::lround(std::sqrt(double(map.size(1))));
  const Tensor salient = at::upsample_nearest2d(map.view({2, 1, side, side}), {8, 8}) > threshold;
  if (threshold == 1) {
    EXPECT_TRUE(salient.any().item<bool>() && !salient.all().item<bool>()) << "a part of the image";
  }
  const Tensor degraded = at::where(salient, gaussian_blur(clean, 1, 4), clean);
  const Tensor other = own->denoise(x + degraded - clean, 2, *model.condition().null).x0;
  return model.pipeline->denoiser()->denoise(x, 2, model.condition()).x0 + (degraded - other) * scale;
}

TEST(Sag, IsItsFormula) {
  for (const double threshold : {0.0, 1.0}) {
    const Model model(sag(fmt::format(", scale: 2, threshold: {}", threshold)));
    const Tensor wanted = by_the_formula(model, 2, threshold);
    EXPECT_TRUE(model.guided().allclose(wanted, 1e-4, 1e-5)) << threshold;
    EXPECT_FALSE(model.guided().allclose(Model("[]").guided(), 1e-3, 1e-3)) << threshold;
  }
}

TEST(Sag, DoesNothingWherePlacesAreNotSalient) {
  const Tensor plain = Model("[]").guided();
  EXPECT_TRUE(at::equal(Model(sag(", threshold: 1000")).guided(), plain));
  EXPECT_TRUE(at::equal(Model(sag(", scale: 0")).guided(), plain));
}

TEST(Sag, AnImageDoesNotDependOnItsBatch) {
  const Model model(sag(", scale: 2"));
  SampleRequest request;
  request.images = {{.label = 0}, {.label = 2}};
  const Tensor together = sample_images(*model.pipeline, request, model.config.sample);
  request.batch = 1;
  EXPECT_TRUE(at::equal(sample_images(*model.pipeline, request, model.config.sample), together));
}

TEST(Sag, NamesTheAttentionThatIsThere) {
  EXPECT_EQ(error_of([] { Model("[{type: sag, blocks: [midle_block.1]}]").guided(); }),
            "blocks: the network has no attention 'midle_block.1'; did you mean 'middle_block.1'?");
}

TEST(GaussianBlur, IsTheConvolutionWithReflectedBorders) {
  const int64_t n = 6;
  Tensor x = at::zeros({1, 1, n, n}, at::kDouble);
  x[0][0][1][2] = 1;
  const Tensor got = gaussian_blur(x, 0.8, 3);
  double sum = 0;
  const auto bell = [&](int64_t i) { return std::exp(-0.5 * double(i * i) / 0.64); };
  for (int64_t i = -3; i <= 3; ++i) sum += bell(i);
  const auto reflected = [&](int64_t i) { return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i; };
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c < n; ++c) {
      double wanted = 0;
      for (int64_t i = -3; i <= 3; ++i)
        for (int64_t j = -3; j <= 3; ++j)
          if (reflected(r + i) == 1 && reflected(c + j) == 2) wanted += bell(i) * bell(j) / (sum * sum);
      EXPECT_NEAR(got[0][0][r][c].item<double>(), wanted, 1e-14) << r << " " << c;
    }
  EXPECT_TRUE(at::equal(gaussian_blur(at::zeros_like(x) + 2, 5, 0), at::zeros_like(x) + 2));
}

TEST(TokenGrid, FollowsTheProportions) {
  EXPECT_EQ(token_grid(24, 1.5).value(), (std::pair<int64_t, int64_t>(6, 4)));
  EXPECT_EQ(token_grid(16, 1).value(), (std::pair<int64_t, int64_t>(4, 4)));
  EXPECT_FALSE(token_grid(17, 1).has_value());
}

}  // namespace
}  // namespace brume::test
