// nn::geglu and its gradients against the definition.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "nn/ops.h"

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

TEST(Geglu, IsTheSameWithoutGradients) {
  const Tensor x = normal({4, 6, 32}, 1).to(at::kFloat);
  const at::NoGradGuard no_grad;
  EXPECT_LT((nn::geglu(x).to(at::kDouble) - definition(x.to(at::kDouble))).abs().max().item<double>(), 1e-6);
}

}  // namespace
}  // namespace brume::test
