// Smoothed energy guidance on a whole model, against its formula, with the kernels of the authors' program (SusungHong/SEG-SDXL 10106ba,
// gaussian_blur_2d in pipeline_seg.py): of ceil(6 blur) + 1 - ceil(6 blur) % 2 tokens, at most H - (H % 2 - 1).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "brume/diffusion/sampling_run.h"
#include "brume/numerics/blur.h"
#include "brume/train/options.h"
#include "support/registry.h"

namespace brume::test {
namespace {

struct Kernel {
  double blur;
  int64_t size;
};

TEST(Seg, BlursQueriesAsItsAuthorsDo) {
  const at::NoGradGuard no_grad;
  for (const Kernel& kernel : {Kernel{0.75, 5}, Kernel{1, 7}, Kernel{2, 9}}) {  // 13 is cut to 9, of 8 x 8 tokens
    const Value yaml = parse_yaml(
        fmt::format("model: {{image: {{channels: 1, height: 16, width: 16}}, network: {{type: unet, multipliers: [1, 2], blocks: 1, "
                    "channels: 16, groups: 8, attention_resolutions: [16], heads: 2, zero_init: false}}, noise: cosine}}\n"
                    "sample: {{steps: 3, guidance: [{{type: seg, blocks: [middle_block.1], scale: 2, blur: {}}}]}}\n",
                    kernel.blur),
        "model.yaml");
    Registry registry = builtins();
    const Config config = read_configuration(registry, yaml);
    const Pipeline pipeline(config.model, Compute{});
    int64_t tokens = 0;
    Taps taps;
    taps.attention["middle_block.1"] = [&](const Tensor& q, const Tensor& k, const Tensor& v) {
      tokens = q.size(2);
      const Tensor image = q.transpose(2, 3).reshape({q.size(0), -1, 8, 8});
      const Tensor blurred = gaussian_blur(image, kernel.blur, kernel.size / 2).reshape({q.size(0), q.size(1), q.size(3), tokens});
      return at::matmul((at::matmul(blurred.transpose(2, 3), k.transpose(2, 3)) / std::sqrt(double(q.size(3)))).softmax(-1), v);
    };
    const Tensor x = per_image_noise(1, 0)->draw(at::zeros({2, 1, 16, 16}), 2, 2) * 2;
    const Tensor own = pipeline.denoiser()->denoise(x, 2, {}).x0;
    const Tensor smoothed = pipeline.denoiser(TimestepRounding::exact, {}, taps)->denoise(x, 2, {}).x0;
    const Tensor got = guided_denoiser(pipeline, config.sample, no_models())->denoise(x, 2, {}).x0;
    EXPECT_EQ(tokens, 64);
    EXPECT_GT((own - smoothed).abs().max().item<double>(), 1e-4);
    EXPECT_TRUE(got.allclose(own + (own - smoothed) * 2, 1e-5, 1e-6)) << kernel.blur;
  }
}

}  // namespace
}  // namespace brume::test
