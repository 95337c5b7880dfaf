// Files of PEFT: the bias of an up matrix, the magnitude of a convolution's DoRA, and the scale of a LoKr of two whole factors.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "brume/core/network.h"
#include "brume/interop/lora.h"
#include "brume/weights/safetensors.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/waves.h"

namespace brume::test {
namespace {

class PeftLora : public testing::Test {
 protected:
  PeftLora() {
    network_ = make<Network>("{type: unet, channels: 4, groups: 2, multipliers: [1], blocks: 1}", {.input = {3, 8, 8}, .out_channels = 3});
    weights_ = prefixed("network.", network_->weights());
  }
  Tensor own(const std::string& name) const {
    return std::find_if(weights_.begin(), weights_.end(), [&](const Weight& w) { return w.name == name; })->tensor;
  }
  std::map<std::string, Tensor> merged(const NamedTensors& tensors, const std::string& config) {
    write_safetensors(folder_.file("adapter_model.safetensors"), tensors, {});
    std::ofstream(folder_.file("adapter_config.json")) << config;
    return merged_loras({folder_.file("adapter_model.safetensors")}, weights_, at::kFloat);
  }
  static void expect_near(const Tensor& got, const Tensor& wanted) {
    ASSERT_EQ(got.sizes(), wanted.sizes());
    EXPECT_LE((got - wanted).abs().max().item<double>(), 1e-5);
  }
  const at::NoGradGuard no_grad_;
  TempFolder folder_;
  std::shared_ptr<Network> network_;
  std::vector<Weight> weights_;
  const std::string convolution_ = "base_model.model.down_blocks.0.resnets.0.conv1",
                    weight_ = "network.input_blocks.1.0.in_layers.2.weight";
};

TEST_F(PeftLora, TheBiasOfTheUpMatrixIsScaledLikeIt) {
  const Tensor a = waves({2, 4, 3, 3}, 0.3), b = waves({4, 2, 1, 1}, 0.7), bias = waves({4}, 1.1);
  for (const std::string adapter : {"", ".default"}) {
    const auto got = merged({{convolution_ + ".lora_A" + adapter + ".weight", a},
                             {convolution_ + ".lora_B" + adapter + ".weight", b},
                             {convolution_ + ".lora_B" + adapter + ".bias", bias}},
                            R"({"r": 2, "lora_alpha": 6})");
    ASSERT_EQ(got.size(), 2u);
    expect_near(got.at(weight_), own(weight_) + at::mm(b.flatten(1), a.flatten(1)).view({4, 4, 3, 3}) * 3);
    const std::string name = "network.input_blocks.1.0.in_layers.2.bias";
    expect_near(got.at(name), own(name) + bias * 3);
  }
}

TEST_F(PeftLora, TheMagnitudeOfAConvolutionIsOneNumberPerRow) {
  const Tensor a = waves({2, 4, 3, 3}, 0.3), b = waves({4, 2, 1, 1}, 0.7), magnitude = waves({1, 4, 1, 1}, 0.4).abs() + 1;
  const auto got = merged(
      {{convolution_ + ".lora_A.weight", a}, {convolution_ + ".lora_B.weight", b}, {convolution_ + ".lora_magnitude_vector", magnitude}},
      R"({"r": 2, "lora_alpha": 2, "use_dora": true})");
  const Tensor sum = own(weight_) + at::mm(b.flatten(1), a.flatten(1)).view({4, 4, 3, 3});
  const Tensor norms = sum.flatten(1).norm(2, at::IntArrayRef({1})).view({4, 1, 1, 1});
  expect_near(got.at(weight_), sum * magnitude.view({4, 1, 1, 1}) / norms);
}

TEST_F(PeftLora, ALokrOfTwoWholeFactorsHasTheRankOfItsSettings) {
  const Tensor w1 = waves({2, 2}, 0.3), w2 = waves({2, 2, 3, 3}, 0.7);
  const NamedTensors tensors{{convolution_ + ".lokr_w1", w1}, {convolution_ + ".lokr_w2", w2}};
  const Tensor delta = at::kron(w1.view({2, 2, 1, 1}), w2);
  expect_near(merged(tensors, R"({"peft_type": "LOKR", "r": 8, "alpha": 4})").at(weight_), own(weight_) + delta * 0.5);
  expect_near(merged(tensors, R"({"peft_type": "LOKR", "r": 8, "alpha": 4, "rank_pattern": {"conv1": 16}})").at(weight_),
              own(weight_) + delta * 0.25);
}

}  // namespace
}  // namespace brume::test
