// What each kind of adapter adds to a weight: laws, and its formula written as sums.
#include "brume/interop/weight_change.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/interop/lora_strength.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

using at::Tensor;

class WeightChanges : public testing::Test {
 protected:
  Tensor normal(std::vector<int64_t> shape) { return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat)); }
  static void expect_near(const Tensor& got, const Tensor& wanted, double tolerance = 1e-5) {
    ASSERT_EQ(got.sizes(), wanted.sizes());
    EXPECT_LE((got - wanted).abs().max().item<double>(), tolerance);
  }
  const at::NoGradGuard no_grad;
  at::Generator random = at::detail::createCPUGenerator(1);
};

TEST_F(WeightChanges, LokrIsAKroneckerProduct) {
  WeightChange c;
  c.parts = {{"lokr_w1", normal({2, 3})}, {"lokr_w2_a", normal({4, 2})}, {"lokr_w2_b", normal({2, 5})}};
  c.alpha = 1, c.has_alpha = true;
  const Tensor w = normal({8, 15});
  ASSERT_EQ(problem_of("m", c, "w", w.sizes()), "");
  expect_near(added_by(c, w, 0.5), at::kron(c.part("lokr_w1"), at::matmul(c.part("lokr_w2_a"), c.part("lokr_w2_b"))) * 0.25);
  c.parts = {{"lokr_w1", normal({2, 3})}, {"lokr_w2", normal({4, 5})}};
  expect_near(added_by(c, w, 1), at::kron(c.part("lokr_w1"), c.part("lokr_w2")));  // full on both sides: alpha does not count
}

TEST_F(WeightChanges, CoresOfConvolutions) {
  const Tensor w = normal({8, 6, 3, 3}), t1 = normal({2, 2, 3, 3}), t2 = normal({2, 2, 3, 3});
  WeightChange loha;
  loha.parts = {{"hada_w1_a", normal({2, 8})}, {"hada_w1_b", normal({2, 6})}, {"hada_t1", t1},
                {"hada_w2_a", normal({2, 8})}, {"hada_w2_b", normal({2, 6})}, {"hada_t2", t2}};
  ASSERT_EQ(problem_of("m", loha, "w", w.sizes()), "");
  const auto entry = [&](const std::string& n, const Tensor& t) {
    double sum = 0;
    for (int64_t i = 0; i < 2; ++i)
      for (int64_t j = 0; j < 2; ++j)
        sum += t[i][j][2][1].item<double>() * loha.part("hada_w" + n + "_a")[i][5].item<double>() *
               loha.part("hada_w" + n + "_b")[j][4].item<double>();
    return sum;
  };
  EXPECT_NEAR(added_by(loha, w, 1)[5][4][2][1].item<double>(), entry("1", t1) * entry("2", t2), 1e-5);
  WeightChange lokr;
  lokr.parts = {{"lokr_w1", normal({2, 3})}, {"lokr_w2_a", normal({2, 4})}, {"lokr_w2_b", normal({2, 2})}, {"lokr_t2", t1}};
  ASSERT_EQ(problem_of("m", lokr, "w", w.sizes()), "");
  double sum = 0;
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 2; ++j)
      sum += t1[i][j][0][2].item<double>() * lokr.part("lokr_w2_a")[i][1].item<double>() * lokr.part("lokr_w2_b")[j][0].item<double>();
  EXPECT_NEAR(added_by(lokr, w, 1)[5][4][0][2].item<double>(), lokr.part("lokr_w1")[1][2].item<double>() * sum, 1e-5);
}

TEST_F(WeightChanges, DoraWithItsFirstMagnitudeIsTheWeight) {
  const Tensor w = normal({4, 6, 3, 3});
  WeightChange c;
  c.parts = {{"lora_down", normal({2, 6, 3, 3})}, {"lora_up", at::zeros({4, 2, 1, 1})}, {"dora_scale", row_norms(w)}};
  EXPECT_EQ(c.kind(), "DoRA");
  EXPECT_EQ(added_by(c, w, 1).abs().max().item<double>(), 0) << "no bit is changed before the first step";
  c.parts["lora_up"] = normal({4, 2, 1, 1});
  const Tensor rows = (w + added_by(c, w, 1)).flatten(1).norm(2, 1);
  expect_near(rows, row_norms(w).flatten(), 1e-4);  // the magnitude is the row's norm, whatever the direction
  c.parts["dora_scale"] = at::ones({1, 6, 1, 1}) * 2;
  const Tensor columns = (w + added_by(c, w, 1)).transpose(0, 1).flatten(1).norm(2, 1);
  expect_near(columns, at::ones({6}) * 2, 1e-4);
}

TEST_F(WeightChanges, OrthogonalOnesKeepLengths) {
  const Tensor w = normal({16, 5}), gram = at::matmul(w.t(), w);
  WeightChange c;
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{4, 4, 4}, {3, 4, 4, 4}}) {
    c.parts = {{"oft_blocks", at::zeros(shape)}};
    ASSERT_EQ(problem_of("m", c, "w", w.sizes()), "");
    expect_near(added_by(c, w, 1), at::zeros({16, 5}), 1e-6);
    c.parts = {{"oft_blocks", normal(shape) * 0.3}};
    EXPECT_EQ(c.kind(), shape.size() == 4 ? "BOFT" : "OFT");
    const Tensor turned = w + added_by(c, w, 1);
    EXPECT_GT((turned - w).abs().max().item<double>(), 0.1);
    expect_near(at::matmul(turned.t(), turned), gram, 1e-4);
    c.parts["rescale"] = at::ones({16, 1}) * 2;
    expect_near(w + added_by(c, w, 1), turned * 2, 1e-4);
  }
}

TEST_F(WeightChanges, Ia3ScalesRowsOrColumns) {
  const Tensor w = normal({4, 3}), rows = normal({4}), columns = normal({3});
  WeightChange c;
  c.parts = {{"weight", rows}, {"on_input", at::tensor(0)}};
  expect_near(added_by(c, w, 0.5), w * rows.view({4, 1}) * 0.5);
  c.parts = {{"weight", columns}, {"on_input", at::tensor(1)}};
  expect_near(added_by(c, w, 1), w * columns);
  c.parts = {{"ia3_l", rows.view({4, 1})}};
  expect_near(added_by(c, w, 1), w * (rows.view({4, 1}) - 1));
}

TEST_F(WeightChanges, GloraInBothOrdersOfItsFactors) {
  const Tensor w = normal({6, 5}), a1 = normal({5, 2}), a2 = normal({2, 5}), b1 = normal({6, 2}), b2 = normal({2, 5});
  const Tensor wanted = at::matmul(w, at::matmul(a1, a2)) + at::matmul(b1, b2);
  WeightChange c;
  c.parts = {{"a1", a1}, {"a2", a2}, {"b1", b1}, {"b2", b2}};
  c.alpha = 1, c.has_alpha = true;
  expect_near(added_by(c, w, 1), wanted * 0.5);
  c.parts = {{"a1", a2}, {"a2", a1}, {"b1", b2}, {"b2", b1}};
  expect_near(added_by(c, w, 1), wanted * 0.5);
}

TEST_F(WeightChanges, GloraOfAConvolution) {
  const Tensor w = normal({6, 5, 3, 3}), a1 = normal({5, 2, 1, 1}), a2 = normal({2, 5, 1, 1}), b1 = normal({6, 2, 1, 1}),
               b2 = normal({2, 5, 3, 3});
  WeightChange c;
  c.parts = {{"a1", a1}, {"a2", a2}, {"b1", b1}, {"b2", b2}};
  double wanted = 0;
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t i = 0; i < 5; ++i) wanted += (w[4][i][1][2] * a1[i][r][0][0] * a2[r][3][0][0]).item<double>();
    wanted += (b1[4][r][0][0] * b2[r][3][1][2]).item<double>();
  }
  EXPECT_NEAR(added_by(c, w, 1)[4][3][1][2].item<double>(), wanted, 1e-5);
}

TEST_F(WeightChanges, StrengthsOfParts) {
  const TempFolder folder;
  const std::string file = folder.file("a.safetensors", "");
  const LoraRequest r = read_lora_request(file + ":0.8@text=0.2,up=0.5,out3=0,mid=1");
  EXPECT_EQ(r.of("conditioner.text_model.encoder.layers.0.mlp.fc1.weight"), 0.2);
  EXPECT_EQ(r.of("network.input_blocks.1.1.proj_in.weight"), 0.8);
  EXPECT_EQ(r.of("network.middle_block.1.proj_in.weight"), 1);
  EXPECT_EQ(r.of("network.output_blocks.2.1.proj_in.weight"), 0.5);
  EXPECT_EQ(r.of("network.output_blocks.3.1.proj_in.weight"), 0);
  EXPECT_EQ(without(error_of([&] { read_lora_request(file + "@middle=1"); }), folder),
            "lora: 'middle' is no part of a model in 'a.safetensors@middle=1'; did you mean 'mid'?");
  EXPECT_EQ(without(error_of([&] { read_lora_request(file + "@mid=x"); }), folder),
            "lora: 'mid=x' is no part and its strength in 'a.safetensors@mid=x'; mid=0.5 is");
}

}  // namespace
}  // namespace brume::test
