// Files of PEFT: the bias of an up matrix, the magnitude of a convolution's DoRA, and the scale of a LoKr of two whole factors.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/peft_adapter.h"
#include "support/waves.h"

namespace brume::test {
namespace {

class PeftLora : public PeftAdapter {
 protected:
  PeftLora() : PeftAdapter(4) {}
  static void expect_near(const Tensor& got, const Tensor& wanted) {
    ASSERT_EQ(got.sizes(), wanted.sizes());
    EXPECT_LE((got - wanted).abs().max().item<double>(), 1e-5);
  }
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
