// nn::geglu and nn::gelu_tanh, their gradients, and nn::layer_norm against their definitions in float64, on every instruction set; a row
// depends on itself alone.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>
#include <tuple>

#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/transformer_ops.h"

namespace brume::test {
namespace {

using at::Tensor;

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kDouble));
}

Tensor definition(const Tensor& x) {
  const int64_t half = x.size(-1) / 2;
  const Tensor gate = x.narrow(-1, half, half);
  return x.narrow(-1, 0, half) * gate * 0.5 * (at::erf(gate * std::sqrt(0.5)) + 1);
}

Tensor tanh_definition(const Tensor& x) { return x * 0.5 * ((std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)).tanh() + 1); }

/// y, dy/dx and the gradient of |dy/dx|^2.
template <class F>
std::vector<Tensor> derivatives(const F& f) {
  const Tensor x = normal({3, 5, 14}, 1).set_requires_grad(true), y = f(x), dy = normal({3, 5, 7}, 2);
  const Tensor plain = torch::autograd::grad({y}, {x}, {dy}, true)[0];
  const Tensor first = torch::autograd::grad({y}, {x}, {dy}, true, true)[0], penalty = (first * first).sum();
  return {y.detach(), plain, first.detach(), torch::autograd::grad({penalty}, {x}, {at::ones_like(penalty)})[0]};
}

TEST(Geglu, IsItsDefinitionAndSoAreItsGradients) {
  const auto ours = derivatives([](const Tensor&x) { return nn::geglu(x); }), wanted = derivatives(definition);
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_LT((ours[i] - wanted[i]).abs().max().item<double>(), 1e-12) << i;
}

Tensor normed(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Tensor centred = x - x.mean(-1, true);
  return centred / ((centred * centred).mean(-1, true) + 1e-5).sqrt() * weight + bias;
}

/// The largest difference, in units of what the type can tell apart at the largest value.
double error(const Tensor& is, const Tensor& wanted) {
  const double unit = is.scalar_type() == at::kBFloat16 ? 4e-3 : 6e-7;
  return (is.to(at::kDouble) - wanted).abs().max().item<double>() / wanted.abs().max().item<double>() / unit;
}

/// Every instruction set there is on this processor, and the types its kernels know.
class TokenOps : public testing::TestWithParam<std::tuple<nn::Isa, at::ScalarType>> {
 protected:
  void SetUp() override {
    if (!nn::isa_supported(std::get<0>(GetParam()))) GTEST_SKIP() << "this processor has no " << nn::isa_name(std::get<0>(GetParam()));
    before_ = nn::isa();
    nn::set_isa(std::get<0>(GetParam()));
  }
  void TearDown() override {
    if (!IsSkipped()) nn::set_isa(before_);
  }
  at::ScalarType type() const { return std::get<1>(GetParam()); }

 private:
  nn::Isa before_ = nn::Isa::generic;
};

TEST_P(TokenOps, AreTheirDefinitions) {
  const at::NoGradGuard no_grad;
  for (const int64_t width : {3, 7, 16, 33, 320}) {  // what fills vectors, and what does not
    const Tensor pair = (normal({3, 5, 2 * width}, 1) * 3).to(type()), x = (normal({3, 5, width}, 2) * 2 + 5).to(type());
    const Tensor weight = normal({width}, 3).to(type()), bias = normal({width}, 4).to(type());
    EXPECT_LT(error(nn::geglu(pair), definition(pair.to(at::kDouble))), 1) << width;
    EXPECT_LT(error(nn::gelu_tanh(pair), tanh_definition(pair.to(at::kDouble))), 1) << width;
    const Tensor wanted = normed(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble));
    EXPECT_LT(error(nn::layer_norm(x, weight, bias), wanted), 4) << width;
    const Tensor scale = normal({3, width}, 5).to(type()), shift = normal({3, width}, 6).to(type());  // of an image each
    const Tensor plain = normed(x.to(at::kDouble), at::ones({width}, at::kDouble), at::zeros({width}, at::kDouble));
    const Tensor modulated = plain * (scale.to(at::kDouble) + 1).unsqueeze(1) + shift.to(at::kDouble).unsqueeze(1);
    EXPECT_LT(error(nn::modulated_layer_norm(x, scale, shift, 1e-5), modulated), 4) << width;
  }
}

TEST_P(TokenOps, TheModulatedNormIsTheSameRecordedAndNot) {
  const Tensor x = normal({2, 3, 24}, 1).to(type()).set_requires_grad(true);
  const Tensor scale = normal({2, 24}, 2).to(type()), shift = normal({2, 24}, 3).to(type());
  const Tensor recorded = nn::modulated_layer_norm(x, scale, shift, 1e-5);
  EXPECT_TRUE(recorded.requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_LT(error(nn::modulated_layer_norm(x, scale, shift, 1e-5), recorded.to(at::kDouble)), 4);
}

TEST_P(TokenOps, GegluHasTheGradientOfItsDefinition) {
  const Tensor values = normal({4, 3, 66}, 5) * 3, dy = normal({4, 3, 33}, 6).to(type());
  const Tensor x = values.to(type()).set_requires_grad(true), exact = x.detach().to(at::kDouble).set_requires_grad(true);
  const Tensor ours = torch::autograd::grad({nn::geglu(x)}, {x}, {dy})[0];
  EXPECT_LT(error(ours, torch::autograd::grad({definition(exact)}, {exact}, {dy.to(at::kDouble)})[0]), 2);
}

TEST_P(TokenOps, GeluTanhHasTheGradientsOfItsDefinition) {
  const Tensor values = normal({4, 3, 33}, 5) * 3, dy = normal({4, 3, 33}, 6).to(type());
  const Tensor x = values.to(type()).set_requires_grad(true), exact = x.detach().to(at::kDouble).set_requires_grad(true);
  const Tensor wanted = torch::autograd::grad({tanh_definition(exact)}, {exact}, {dy.to(at::kDouble)}, true, true)[0];
  EXPECT_LT(error(torch::autograd::grad({nn::gelu_tanh(x)}, {x}, {dy})[0], wanted), 2);
  const Tensor first = torch::autograd::grad({nn::gelu_tanh(x)}, {x}, {dy}, true, true)[0];
  EXPECT_LT(error(torch::autograd::grad({first.sum()}, {x})[0], torch::autograd::grad({wanted.sum()}, {exact})[0]), 8);
}

TEST_P(TokenOps, GeluTanhOfHugeNumbersIsTheNumberOrNothing) {
  if (nn::isa() == nn::Isa::reference) GTEST_SKIP() << "LibTorch's own";
  const Tensor x = (at::ones({1, 40}) * 1e30).to(type()).set_requires_grad(true), y = nn::gelu_tanh(x), ones = at::ones_like(y);
  EXPECT_TRUE(y.equal(x));
  EXPECT_TRUE(torch::autograd::grad({y}, {x}, {ones})[0].equal(ones));
  const Tensor z = x.detach().neg().set_requires_grad(true), w = nn::gelu_tanh(z);
  EXPECT_LT(w.abs().max().item<double>(), 1e-5);
  EXPECT_LT(torch::autograd::grad({w}, {z}, {ones})[0].abs().max().item<double>(), 1e-20);
}

TEST_P(TokenOps, ARowDependsOnItselfAlone) {
  const at::NoGradGuard no_grad;
  const Tensor x = normal({40, 7, 66}, 7).to(type()), weight = normal({66}, 8).to(type());
  const Tensor scale = normal({40, 66}, 9).to(type()), modulated = nn::modulated_layer_norm(x, scale, scale, 1e-5);
  const Tensor all = nn::layer_norm(x, weight, weight), gates = nn::geglu(x), curves = nn::gelu_tanh(x);
  for (const int64_t i : {0, 13, 39}) {
    EXPECT_TRUE(nn::layer_norm(x.narrow(0, i, 1), weight, weight).equal(all.narrow(0, i, 1))) << i;
    EXPECT_TRUE(nn::geglu(x.narrow(0, i, 1)).equal(gates.narrow(0, i, 1))) << i;
    const Tensor own = scale.narrow(0, i, 1);
    EXPECT_TRUE(nn::modulated_layer_norm(x.narrow(0, i, 1), own, own, 1e-5).equal(modulated.narrow(0, i, 1))) << i;
    if (nn::isa() == nn::Isa::reference) continue;  // LibTorch's gelu takes another path at the end of an array
    EXPECT_TRUE(nn::gelu_tanh(x.narrow(0, i, 1)).equal(curves.narrow(0, i, 1))) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, TokenOps,
                         testing::Combine(testing::Values(nn::Isa::reference, nn::Isa::generic, nn::Isa::avx2, nn::Isa::avx512,
                                                          nn::Isa::avx512_bf16, nn::Isa::amx),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& info) {
                           return std::string(nn::isa_name(std::get<0>(info.param))) + "_" + at::toString(std::get<1>(info.param));
                         });

TEST(LayerNorm, HasGradientsWhereItLearns) {
  const Tensor x = normal({2, 3, 8}, 1).set_requires_grad(true), weight = normal({8}, 2).set_requires_grad(true), dy = normal({2, 3, 8}, 3);
  const auto ours = torch::autograd::grad({nn::layer_norm(x, weight, weight)}, {x, weight}, {dy});
  const auto wanted = torch::autograd::grad({normed(x, weight, weight)}, {x, weight}, {dy});
  for (size_t i = 0; i < 2; ++i) EXPECT_LT((ours[i] - wanted[i]).abs().max().item<double>(), 1e-12) << i;
}

}  // namespace
}  // namespace brume::test
