// The diffusion transformer on signals, volumes and patches that are no squares: what is cut is joined, positions count along each axis,
// and without positions a shift by a patch along any axis shifts the result.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/roll.h>

#include <cmath>

#include "brume/core/network.h"
#include "brume/nn/blocks/patches.h"
#include "brume/nn/ops/transformer_ops.h"
#include "support/registry.h"

namespace brume::test {
namespace {

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kDouble));
}
double largest(const Tensor& t) { return t.abs().max().item<double>(); }

std::shared_ptr<Network> awake(const std::string& yaml, const ImageShape& input) {
  const auto network = make<Network>(yaml, Network::Context{.input = input, .out_channels = input.channels, .seed = 4});
  const at::NoGradGuard no_grad;
  uint64_t seed = 50;
  for (Weight& w : network->weights()) {
    w.tensor.set_data(w.tensor.to(at::kDouble));
    if (w.trainable) w.tensor.add_(normal(w.tensor.sizes(), ++seed) * 0.1);
  }
  return network;
}

Tensor run(const Network& network, const Tensor& x) {
  const at::NoGradGuard no_grad;
  return network.forward(x, at::arange(x.size(0), at::kFloat) * 300 + 20, {}, nullptr);
}

// A convolution with the stride of its kernel sees the same patches.
TEST(Patches, AreThoseOfAConvolutionAndAreJoinedAgain) {
  const nn::PatchSize patch{3, 4, 2};
  const nn::PatchGrid grid{2, 3, 5};  // 10 slices of 6x12
  const Tensor x = normal({2, 3, 60, 12}, 1), weight = normal({7, 3, 2, 3, 4}, 2);
  const Tensor tokens = nn::cut_patches(x, grid, patch).matmul(weight.flatten(1).t());
  const Tensor wanted = at::conv3d(x.view({2, 3, 10, 6, 12}), weight, {}, {2, 3, 4}).flatten(2).transpose(1, 2);
  ASSERT_EQ(tokens.sizes(), at::IntArrayRef({2, 30, 7}));
  EXPECT_LT(largest(tokens - wanted), 1e-12);
  const Tensor last = nn::cut_patches(x, grid, patch).reshape({2, 30, 3, 24}).transpose(2, 3).reshape({2, 30, 72});
  EXPECT_TRUE(nn::join_patches(last, grid, patch).equal(x));
}

TEST(PatchPositions, CountAlongThreeAxes) {
  const nn::PatchGrid grid{3, 4, 2};
  const Tensor table = nn::sine_positions(grid, grid, 24);
  const auto value = [&](int64_t token, int64_t channel) { return table[token][channel].item<double>(); };
  const int64_t token = (1 * 3 + 2) * 4 + 3;  // slice 1, row 2, column 3
  const double rate = std::pow(10000.0, -0.25);
  EXPECT_NEAR(value(token, 1), std::sin(3 * rate), 1e-6);
  EXPECT_NEAR(value(token, 4), std::cos(3), 1e-6);
  EXPECT_NEAR(value(token, 8 + 1), std::sin(2 * rate), 1e-6);
  EXPECT_NEAR(value(token, 16), std::sin(1), 1e-6);
  EXPECT_NEAR(value(token, 20), std::cos(1), 1e-6);
}

// Su et al. 2021: the product of a rotated query and a rotated key depends on the distance along each axis alone.
TEST(PatchPositions, RotateByTheDistanceAlongThreeAxes) {
  const nn::PatchGrid grid{3, 4, 3};
  const nn::RotaryTable table = nn::rotary_table(grid, grid, 12);
  ASSERT_EQ(table.cosines.sizes(), at::IntArrayRef({36, 6}));
  const Tensor q = normal({1, 1, 1, 12}, 3).expand({1, 1, 36, 12}), k = normal({1, 1, 1, 12}, 4).expand({1, 1, 36, 12});
  const Tensor a = nn::rotate(q, table.cosines, table.sines)[0][0], b = nn::rotate(k, table.cosines, table.sines)[0][0];
  const auto token = [](int64_t slice, int64_t row, int64_t column) { return (slice * 3 + row) * 4 + column; };
  const auto product = [&](int64_t i, int64_t j) { return (a[i] * b[j]).sum().item<double>(); };
  EXPECT_NEAR(product(token(0, 0, 0), token(1, 1, 2)), product(token(1, 1, 1), token(2, 2, 3)), 1e-5);
  EXPECT_GT(std::abs(product(token(0, 0, 0), token(1, 0, 0)) - product(token(0, 0, 0), token(0, 1, 0))), 1e-3);
  EXPECT_GT(std::abs(product(token(0, 0, 0), token(1, 0, 0)) - product(token(0, 0, 0), token(2, 0, 0))), 1e-3);
}

/// A network and how its images are rolled by one patch along each axis.
struct Rolled {
  std::string yaml;
  ImageShape shape;
  std::vector<int64_t> view, shifts;  ///< axes after the channels
};
const std::vector<Rolled> ranks{
    {"{type: dit, width: 24, depth: 2, heads: 2, patch: 4", {2, 1, 24}, {24}, {4}},
    {"{type: dit, width: 24, depth: 2, heads: 2, patch: 4, patch_height: 2", {2, 6, 12}, {6, 12}, {2, 4}},
    {"{type: dit, width: 24, depth: 2, heads: 2, patch: 2, slices: 6, patch_slices: 3", {1, 24, 6}, {6, 4, 6}, {3, 2, 2}},
};

TEST(DitRanks, WithoutPositionsAShiftByAPatchShiftsTheResult) {
  for (const Rolled& r : ranks) {
    const Tensor x = normal({2, r.shape.channels, r.shape.height, r.shape.width}, 6);
    std::vector<int64_t> view{2, r.shape.channels};
    view.insert(view.end(), r.view.begin(), r.view.end());
    for (size_t axis = 0; axis < r.view.size(); ++axis) {
      const auto rolled = [&](const Tensor& t) { return at::roll(t.view(view), r.shifts[axis], int64_t(axis) + 2).reshape(t.sizes()); };
      const auto blind = awake(r.yaml + ", positions: none}", r.shape);
      EXPECT_LT(largest(run(*blind, rolled(x)) - rolled(run(*blind, x))), 1e-10) << r.yaml << " axis " << axis;
      for (const char* positions : {", positions: sine}", ", positions: learned}", ", positions: none, rotary: true}"}) {
        const auto seeing = awake(r.yaml + positions, r.shape);
        EXPECT_GT(largest(run(*seeing, rolled(x)) - rolled(run(*seeing, x))), 1e-6) << r.yaml << positions << " axis " << axis;
      }
    }
  }
}

TEST(DitRanks, TakeOtherSizes) {
  for (const char* positions : {", positions: sine}", ", positions: learned, rotary: true}"}) {
    const auto signal = awake(ranks[0].yaml + positions, ranks[0].shape), volume = awake(ranks[2].yaml + positions, ranks[2].shape);
    EXPECT_EQ(run(*signal, normal({1, 2, 1, 40}, 6)).sizes(), at::IntArrayRef({1, 2, 1, 40}));
    EXPECT_EQ(run(*volume, normal({1, 1, 36, 8}, 6)).sizes(), at::IntArrayRef({1, 1, 36, 8}));
  }
}

TEST(DitRanks, MistakesAreNamed) {
  const auto error = [](const std::string& options, const ImageShape& shape) {
    return error_of([&] { make<Network>("{type: dit, width: 24, heads: 2, " + options + "}", Network::Context{.input = shape}); });
  };
  EXPECT_NE(error("patch: 4", {1, 1, 10}).find("patch: patches of 1x4 do not divide 1x10, the height and width of the network's input"),
            std::string::npos);
  EXPECT_NE(error("slices: 5, patch: 2", {1, 24, 8}).find("slices: 5 do not divide 24, the height of the network's input"),
            std::string::npos);
  EXPECT_NE(error("slices: 4, patch: 4", {1, 24, 8}).find("patches of 4x4 do not divide 6x8, the height and width of a slice"),
            std::string::npos);
  EXPECT_NE(error("slices: 4, patch_slices: 3", {1, 24, 8}).find("3 does not divide the 4 slices"), std::string::npos);
  EXPECT_NE(error_of([] {
              make<Network>("{type: dit, width: 32, slices: 4}", Network::Context{.input = {1, 24, 8}});
            }).find("32 is no multiple of 12, which sines of three axes need"),
            std::string::npos);
}

}  // namespace
}  // namespace brume::test
