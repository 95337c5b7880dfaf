// Chains of codes against matrices: the forward kernel, Bayes' rule and the terms of the bound, all by enumeration.
#include "brume/numerics/code_chain.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

namespace brume::test {
namespace {

constexpr int64_t K = 3;
const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);
const std::vector<double> alphas{0.95, 0.7, 0.65, 0.2, 0.01};  // of t = 1 ... 5

/// Q[i, j] = q(j | i) of states, for a probability `a` to stay: [K, K], or [K + 1, K + 1] with the mask last.
Tensor matrix(CodeKernel kernel, double a) {
  const int64_t states = kernel == CodeKernel::uniform ? K : K + 1;
  const Tensor stay = at::eye(states, f64) * a;
  if (kernel == CodeKernel::uniform) return stay + (1 - a) / double(K);
  Tensor masks = at::zeros({states, states}, f64);
  masks.select(1, K).fill_(1 - a);
  return stay + masks;
}

/// The product of the one-step matrices of steps 1 ... t.
Tensor product(CodeKernel kernel, size_t t) {
  Tensor all = at::eye(kernel == CodeKernel::uniform ? K : K + 1, f64);
  for (size_t i = 0; i < t; ++i) all = all.matmul(matrix(kernel, i == 0 ? alphas[0] : alphas[i] / alphas[i - 1]));
  return all;
}

/// One position with this state; the mask is K.
Tensor state(int64_t s) {
  Tensor x = at::zeros({1, K, 1, 1}, f64);
  if (s < K) x[0][s].fill_(1);
  return x;
}

double at_state(const Tensor& weights, int64_t s) { return weights[0][s].item<double>(); }

class CodeChain : public testing::TestWithParam<CodeKernel> {
 protected:
  int64_t states() const { return GetParam() == CodeKernel::uniform ? K : K + 1; }
};

/// 3000 evenly spread uniform numbers fall on the states in the shares of the row of the product.
TEST_P(CodeChain, TStepsAreTheProductOfOneStepMatrices) {
  constexpr int64_t count = 3000;
  const Tensor uniform = ((at::arange(count, f64) + 0.5) / double(count)).view({1, 1, 1, count});
  for (size_t t = 1; t <= alphas.size(); ++t) {
    const Tensor wanted = product(GetParam(), t);
    for (int64_t k = 0; k < K; ++k) {
      const Tensor x = corrupted(GetParam(), state(k).expand({1, K, 1, count}), {alphas[t - 1]}, uniform);
      for (int64_t j = 0; j < states(); ++j) {
        const double share = (j < K ? x.select(1, j) : masked(x)).sum().item<double>() / double(count);
        EXPECT_NEAR(share, wanted[k][j].item<double>(), 2.0 / double(count)) << "t = " << t << ", " << k << " to " << j;
      }
    }
  }
}

/// q(x_s | x_t, x0) = q(x_t | x_s) q(x_s | x0) / q(x_t | x0), and eq. 4 as its sum over x0.
TEST_P(CodeChain, ThePosteriorIsBayesRule) {
  const Tensor p = at::tensor({0.6, 0.3, 0.1}, f64);
  for (size_t t = 1; t <= alphas.size(); ++t)
    for (size_t s = 0; s < t; ++s) {
      const double alpha_s = s == 0 ? 1 : alphas[s - 1];
      const Tensor to_t = matrix(GetParam(), alphas[t - 1] / alpha_s), to_s = product(GetParam(), s), whole = product(GetParam(), t);
      const std::vector<CodeStep> steps{{alphas[t - 1], alpha_s}};
      for (int64_t i = 0; i < states(); ++i) {
        std::vector<double> joint(size_t(states()), 0);
        for (int64_t k = 0; k < K; ++k) {
          const double evidence = whole[k][i].item<double>();
          const Tensor found = posterior(GetParam(), state(i), state(k), steps), q = found / found.sum();
          for (int64_t j = 0; j < states(); ++j) {
            const double both = (to_t[j][i] * to_s[k][j]).item<double>();
            joint[size_t(j)] += p[k].item<double>() * both;
            if (evidence > 0) {
              EXPECT_NEAR(at_state(q, j), both / evidence, 1e-12) << t << s << i << k << j;
            }
          }
        }
        double total = 0;
        for (const double v : joint) total += v;
        const Tensor found = posterior(GetParam(), state(i), p.view({1, K, 1, 1}), steps), model = found / found.sum();
        for (int64_t j = 0; j < states(); ++j) EXPECT_NEAR(at_state(model, j), joint[size_t(j)] / total, 1e-12) << t << s << i << j;
      }
    }
}

TEST_P(CodeChain, ATermOfTheBoundIsTheDivergence) {
  const Tensor logits = at::tensor({0.4, -1.2, 0.9}, f64).view({1, K, 1, 1}), p = at::softmax(logits, 1);
  for (size_t t = 1; t <= alphas.size(); ++t)
    for (size_t s = 0; s < t; ++s) {
      const std::vector<CodeStep> steps{{alphas[t - 1], s == 0 ? 1 : alphas[s - 1]}};
      const Tensor whole = product(GetParam(), t);
      for (int64_t k = 0; k < K; ++k)
        for (int64_t i = 0; i < states(); ++i) {
          if (whole[k][i].item<double>() == 0) continue;  // x0 = k never becomes i
          Tensor q = posterior(GetParam(), state(i), state(k), steps), r = posterior(GetParam(), state(i), p, steps);
          if (i < K && GetParam() == CodeKernel::absorbing) r = q;  // what is unmasked is known
          q = q / q.sum(), r = r / r.sum();
          double wanted = 0;
          for (int64_t j = 0; j < states(); ++j)
            if (const double v = at_state(q, j); v > 0) wanted += v * std::log(v / at_state(r, j));
          EXPECT_NEAR(step_divergence(GetParam(), state(i), state(k), logits, steps).item<double>(), wanted, 1e-9) << t << s << k << i;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, CodeChain, testing::Values(CodeKernel::uniform, CodeKernel::absorbing),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST(Drawn, EachChannelByItsWeight) {
  constexpr int64_t count = 4000;
  const Tensor weights = at::tensor({2.0, 0.0, 5.0, 1.0}, f64).view({1, 4, 1, 1}).expand({1, 4, 1, count});
  const Tensor codes = drawn(weights, ((at::arange(count, f64) + 0.5) / double(count)).view({1, 1, 1, count}));
  const double wanted[] = {0.25, 0, 0.625, 0.125};
  for (int64_t k = 0; k < 4; ++k) EXPECT_NEAR((codes == k).sum().item<double>() / double(count), wanted[k], 1.0 / double(count)) << k;
}

TEST(Drawn, ChannelsOfWeightZeroAreNeverDrawn) {
  const Tensor weights = at::tensor({0.0, 1.0, 0.0}, f64).view({1, 3, 1, 1});
  for (const double u : {0.0, 0.5, 1 - 1e-12}) EXPECT_EQ(drawn(weights, at::full({1, 1, 1, 1}, u, f64)).item<int64_t>(), 1) << u;
}

}  // namespace
}  // namespace brume::test
