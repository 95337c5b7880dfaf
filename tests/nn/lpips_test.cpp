// LPIPS with weights drawn at random, against the same formula written out with LibTorch's own operations.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "brume/core/perceptual_loss.h"
#include "brume/weights/safetensors.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

const std::vector<std::vector<int>> stages{{0, 2}, {5, 7}, {10, 12, 14}, {17, 19, 21}, {24, 26, 28}};
const std::vector<int64_t> widths{8, 12, 16, 20, 20};

struct Drawn {
  at::Generator random = at::detail::createCPUGenerator(1);
  std::map<std::string, Tensor> vgg, heads;
  Drawn() {
    const auto options = at::TensorOptions().dtype(at::kFloat);
    int64_t in = 3;
    for (size_t s = 0; s < 5; ++s) {
      for (const int n : stages[s]) {
        vgg["features." + std::to_string(n) + ".weight"] =
            at::randn({widths[s], in, 3, 3}, random, options) * std::sqrt(2.0 / double(9 * in));
        vgg["features." + std::to_string(n) + ".bias"] = at::randn({widths[s]}, random, options) * 0.1;
        in = widths[s];
      }
      heads["lin" + std::to_string(s) + ".model.1.weight"] = at::rand({1, widths[s], 1, 1}, random, options);
    }
  }
  static void write(const std::string& path, const std::map<std::string, Tensor>& tensors, const std::map<std::string, Tensor>& more = {}) {
    NamedTensors all;
    for (const auto* part : {&tensors, &more})
      for (const auto& [name, tensor] : *part) all.push_back({name, tensor});
    write_safetensors(path, all);
  }
  std::vector<Tensor> features(const Tensor& x) {
    Tensor h = (x.expand({-1, 3, -1, -1}) - at::tensor({-0.030f, -0.088f, -0.188f}).view({1, 3, 1, 1})) /
               at::tensor({0.458f, 0.448f, 0.450f}).view({1, 3, 1, 1});
    std::vector<Tensor> all;
    for (size_t s = 0; s < 5; ++s) {
      if (s > 0) h = at::max_pool2d(h, {2, 2}, {2, 2});
      for (const int n : stages[s]) {
        const std::string name = "features." + std::to_string(n);
        h = at::relu(at::conv2d(h, vgg[name + ".weight"], vgg[name + ".bias"], 1, 1));
      }
      all.push_back(h / (h.norm(2, {1}, true) + 1e-10));
    }
    return all;
  }
  Tensor distance(const Tensor& a, const Tensor& b) {
    const std::vector<Tensor> fa = features(a), fb = features(b);
    Tensor sum = at::zeros({a.size(0)});
    for (size_t s = 0; s < 5; ++s)
      sum = sum + at::conv2d((fa[s] - fb[s]).pow(2), heads["lin" + std::to_string(s) + ".model.1.weight"]).flatten(1).mean(1);
    return sum;
  }
};

TEST(Lpips, IsTheFormulaOfThePaper) {
  const TempFolder folder;
  Drawn drawn;
  Drawn::write(folder.file("vgg.safetensors"), drawn.vgg);
  Drawn::write(folder.file("heads.safetensors"), drawn.heads);
  Drawn::write(folder.file("both.safetensors"), drawn.vgg, drawn.heads);
  for (const int64_t channels : {1, 3}) {
    const auto options = at::TensorOptions().dtype(at::kFloat);
    const Tensor a = at::rand({2, channels, 32, 32}, drawn.random, options) * 2 - 1,
                 b = at::rand({2, channels, 32, 32}, drawn.random, options) * 2 - 1;
    const Tensor expected = drawn.distance(a, b);
    for (const std::string& files : {"vgg: " + folder.file("vgg.safetensors") + ", heads: " + folder.file("heads.safetensors"),
                                     "vgg: " + folder.file("both.safetensors")}) {
      const auto lpips = make<PerceptualLoss>("{type: lpips}", PerceptualLoss::Context{{channels, 32, 32}}, files);
      EXPECT_TRUE(lpips->distance(a, b).allclose(expected, 1e-4, 1e-6)) << lpips->distance(a, b) << expected;
      EXPECT_EQ(lpips->distance(a, a).abs().max().item<double>(), 0);
      Tensor x = a.clone().set_requires_grad(true);
      lpips->distance(x, b).sum().backward();
      EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
      EXPECT_GT(x.grad().abs().max().item<double>(), 0);
    }
  }
}

TEST(Lpips, SaysWhatIsMissing) {
  const TempFolder folder;
  const Drawn drawn;
  Drawn::write(folder.file("vgg.safetensors"), drawn.vgg);
  const std::string error = error_of([&] {
    make<PerceptualLoss>("{type: lpips}", PerceptualLoss::Context{{3, 32, 32}}, "vgg: " + folder.file("vgg.safetensors"));
  });
  EXPECT_NE(error.find("vgg.safetensors: has no tensor 'lin0.model.1.weight', nor 'lins.0.model.1.weight'"), std::string::npos) << error;
}

}  // namespace
}  // namespace brume::test
