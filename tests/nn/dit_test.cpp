// The operations and blocks of the diffusion transformer: laws of norms and rotary positions, gradients against differences, images of
// other sizes, taps.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/core/network.h"
#include "brume/nn/blocks/patch_positions.h"
#include "brume/nn/ops/transformer_ops.h"
#include "support/registry.h"

namespace brume::test {
namespace {

Tensor normal(at::IntArrayRef shape, uint64_t seed, at::ScalarType type = at::kFloat) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat)).to(type);
}
double largest(const Tensor& t) { return t.abs().max().item<double>(); }

TEST(TransformerOps, RmsNormDividesByTheRootOfTheMeanSquare) {
  const Tensor x = normal({3, 5, 24}, 1, at::kDouble), w = normal({24}, 2, at::kDouble);
  const Tensor wanted = x / ((x * x).mean(-1, true) + 1e-6).sqrt() * w;
  EXPECT_LT(largest(nn::rms_norm(x, w) - wanted), 1e-14);
  EXPECT_LT(largest(nn::rms_norm(x.to(at::kFloat), w.to(at::kFloat)) - wanted), 2e-6);
  EXPECT_LT(largest(nn::rms_norm(x, {}) * w - wanted), 1e-14);
  const Tensor recorded = nn::rms_norm(x.detach().clone().set_requires_grad(true), w).detach();
  EXPECT_LT(largest(recorded - wanted), 1e-14);
}

TEST(TransformerOps, GeluTanhIsTheSameRecordedAndNot) {
  const Tensor x = at::arange(-40, 40, 0.01, at::kDouble), recorded = nn::gelu_tanh(x.clone().set_requires_grad(true)).detach();
  const Tensor wanted = x * 0.5 * ((0.7978845608028654 * (x + 0.044715 * x * x * x)).tanh() + 1);
  EXPECT_LT(largest(nn::gelu_tanh(x) - wanted), 1e-13);
  EXPECT_LT(largest(recorded - wanted), 1e-13);
}

// Su et al. 2021: the product of a rotated query and a rotated key depends on the distance of their positions alone.
TEST(TransformerOps, RotatedProductsDependOnTheDistance) {
  const nn::PatchGrid grid{4, 6};
  const nn::RotaryTable table = nn::rotary_table(grid, grid, 16);
  const Tensor q = normal({1, 1, 1, 16}, 3).expand({1, 1, 24, 16}), k = normal({1, 1, 1, 16}, 4).expand({1, 1, 24, 16});
  const Tensor a = nn::rotate(q, table.cosines, table.sines)[0][0], b = nn::rotate(k, table.cosines, table.sines)[0][0];
  const auto product = [&](int64_t i, int64_t j) { return (a[i] * b[j]).sum().item<double>(); };
  EXPECT_NEAR(product(0, 8), product(9, 17), 1e-5);  // one row and two columns apart
  EXPECT_NEAR(product(0, 8), product(15, 23), 1e-5);
  EXPECT_GT(std::abs(product(0, 8) - product(0, 7)), 1e-3);
  EXPECT_GT(std::abs(product(0, 1) - product(0, 6)), 1e-3);
  EXPECT_NEAR(a[23].norm().item<double>(), q[0][0][0].norm().item<double>(), 1e-5);
}

TEST(PatchPositions, OfALargerImageSpreadOverTheSameRange) {
  const nn::PatchGrid small{4, 4}, large{8, 8};
  const Tensor a = nn::sine_positions(small, small, 16).view({4, 4, 16}), b = nn::sine_positions(large, small, 16).view({8, 8, 16});
  for (int64_t row = 0; row < 4; ++row)
    for (int64_t column = 0; column < 4; ++column) EXPECT_TRUE(at::equal(a[row][column], b[2 * row][2 * column]));
  const Tensor table = normal({1, 16, 8}, 5);
  EXPECT_TRUE(at::equal(nn::resized_positions(table, small, small), table));
  EXPECT_EQ(nn::resized_positions(table, large, small).sizes(), at::IntArrayRef({1, 64, 8}));
}

const std::vector<std::string> networks{
    "{type: dit, width: 16, depth: 2, heads: 2, patch: 4}",
    "{type: dit, width: 16, depth: 3, heads: 2, patch: 4, positions: learned, norm: rms, activation: swiglu, qk_norm: true, rotary: true, "
    "long_skips: true, tokens: in_context}",
    "{type: dit, width: 16, depth: 2, heads: 2, patch: 2, qk_norm: true, modulation: single}"};
const Network::Context with_tokens{.input = {2, 8, 8}, .out_channels = 2, .classes = 3, .seed = 4, .context_width = 6, .vector_width = 5};

/// With random weights everywhere, in float64.
std::shared_ptr<Network> awake(const std::string& yaml) {
  const auto network = make<Network>(yaml, with_tokens);
  const at::NoGradGuard no_grad;
  uint64_t seed = 50;
  for (Weight& w : network->weights()) {
    w.tensor.set_data(w.tensor.to(at::kDouble));
    if (w.trainable) w.tensor.add_(normal(w.tensor.sizes(), ++seed, at::kDouble) * 0.1);
  }
  return network;
}

Tensor run(const Network& network, const Tensor& x, const Taps& taps = {}) {
  Condition c{.classes = at::arange(x.size(0), at::kLong)};
  c.context = normal({x.size(0), 4, 6}, 8, at::kDouble), c.vector = normal({x.size(0), 5}, 9, at::kDouble);
  c.context_mask = (at::arange(4).unsqueeze(0) < 3).expand({x.size(0), 4}).to(at::kFloat);
  return network.forward(x, at::arange(x.size(0), at::kFloat) * 300 + 20, c, nullptr, taps);
}

TEST(Dit, GradientsAreThoseOfDifferences) {
  for (const std::string& yaml : networks) {
    const auto network = awake(yaml);
    const Tensor x = normal({2, 2, 8, 8}, 6, at::kDouble), r = normal({2, 2, 8, 8}, 7, at::kDouble);
    const auto loss = [&] { return (run(*network, x) * r).sum(); };
    for (Weight& w : network->weights()) w.tensor.set_requires_grad(w.trainable);
    loss().backward();
    double worst = 0;
    for (const Weight& w : network->weights()) {
      if (!w.trainable) continue;
      const at::NoGradGuard no_grad;
      const Tensor step = normal(w.tensor.sizes(), 11, at::kDouble), before = w.tensor.clone();
      const double exact = (w.tensor.grad() * step).sum().item<double>(), h = 1e-5;
      const auto at = [&](double t) {
        Tensor(w.tensor).copy_(before + step * t);
        return loss().item<double>();
      };
      const double differences = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
      Tensor(w.tensor).copy_(before);
      worst = std::max(worst, std::abs(exact - differences) / std::max(1.0, std::abs(exact)));
      EXPECT_NEAR(exact, differences, 1e-6 * std::max(1.0, std::abs(exact))) << w.name << " of " << yaml;
    }
    fmt::print("gradients: largest error {:.1e}\n", worst);
  }
}

TEST(Dit, TakesImagesOfAnySize) {
  const at::NoGradGuard no_grad;
  for (const std::string& yaml : networks) {
    const auto network = awake(yaml);
    EXPECT_EQ(run(*network, normal({1, 2, 16, 12}, 6, at::kDouble)).sizes(), at::IntArrayRef({1, 2, 16, 12})) << yaml;
  }
}

TEST(Dit, RefusesSizesThatAreNoMultiplesOfThePatch) {
  EXPECT_EQ(
      error_of([] {
        make<Network>("{type: dit, patch: 3}", Network::Context{.input = {1, 28, 27}});
      }),
      "test.yaml:1:1: network: patch: 3 does not divide 28x27, the height and width of the network's input; divisors of both are needed");
  EXPECT_EQ(error_of([] { make<Network>("{type: dit, width: 12, heads: 5}", Network::Context{}); }),
            "test.yaml:1:31: network: heads: 5 heads do not divide width 12");
}

// A tap of each block sees what the block computes; one that skips all blocks leaves the patches.
TEST(Dit, TapsReachEveryBlock) {
  const at::NoGradGuard no_grad;
  for (const std::string& yaml : networks) {
    const auto network = awake(yaml);
    const Tensor x = normal({1, 2, 8, 8}, 6, at::kDouble), plain = run(*network, x);
    Taps look, skip;
    size_t seen = 0;
    for (const std::string& name : network->tap_points().blocks) {
      look.blocks[name] = [&](const Tensor&, const std::function<Tensor()>& compute) { return ++seen, compute(); };
      skip.blocks[name] = [](const Tensor& input, const std::function<Tensor()>&) { return input; };
    }
    EXPECT_TRUE(at::equal(run(*network, x, look), plain));
    EXPECT_EQ(seen, network->tap_points().blocks.size());
    EXPECT_FALSE(at::allclose(run(*network, x, skip), plain));
    Taps zero;
    for (const std::string& name : network->tap_points().attention)
      zero.attention[name] = [](const Tensor& q, const Tensor&, const Tensor&) { return q * 0; };
    EXPECT_FALSE(at::allclose(run(*network, x, zero), plain));
  }
}

}  // namespace
}  // namespace brume::test
